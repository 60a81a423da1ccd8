"""Recordings of event cameras: AEDAT 2.0 and 3.1 files, and the frames that networks take."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rheobase._errors import unknown_name

__all__ = ["Events", "event_frames", "event_slices", "read_aedat2", "read_aedat3"]

Integers = NDArray[np.int64]

_HEADER_END = b"#!END-HEADER"
_POLARITY = 1  # the type of packets that hold brightness changes
_PACKET = np.dtype(
    [
        ("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4"), ("overflow", "<i4"),
        ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Changes of brightness in order of time, each an entry of four arrays ``[n]`` of int64.

    Attributes:
        t: microseconds.
        x: column, from the left.
        y: row, from the top.
        p: 1 brighter, 0 darker.
    """

    t: Integers
    x: Integers
    y: Integers
    p: Integers

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, end: int) -> Events:
        """The events with ``start <= t < end``."""
        kept = (self.t >= start) & (self.t < end)
        return Events(self.t[kept], self.x[kept], self.y[kept], self.p[kept])


def read_aedat2(path: str | os.PathLike[str]) -> Events:
    """Read an AEDAT 2.0 file of a DVS128 as its camera stood; times are counted from the first.

    Addresses are 32 bits, big-endian: polarity, 7 bits of x, 7 bits of y.

    Raises:
        ValueError: the file is cut, or not AEDAT 2.0.
    """
    raw = _after_comments(Path(path), b"#!AER-DAT2.0")
    if len(raw) % 8:
        raise ValueError(f"{path} is cut: {len(raw)} bytes of events are no multiple of 8")
    words = np.frombuffer(raw, ">u4").reshape(-1, 2).astype(np.int64)
    address, t = words[:, 0], words[:, 1]
    # Bit 0 is set where it became darker.
    polarity = 1 - (address & 1)
    return Events(t - t[0] if len(t) else t, address >> 1 & 127, address >> 8 & 127, polarity)


def _after_comments(path: Path, first: bytes) -> bytes:
    with path.open("rb") as file:
        start = file.read(len(first))
        if start != first:
            raise ValueError(f"{path} does not begin with {first.decode()}, but with {start!r}")
        file.readline()
        at = file.tell()
        while (line := file.readline()).startswith(b"#"):
            at = file.tell()
            if line.startswith(_HEADER_END):
                break
        file.seek(at)
        return file.read()


def read_aedat3(path: str | os.PathLike[str]) -> Events:
    """Read the brightness changes of an AEDAT 3.1 file; other packets are passed over.

    Raises:
        ValueError: the file is cut, or not AEDAT 3.1.
    """
    data = io.BytesIO(_after_comments(Path(path), b"#!AER-DAT3.1"))
    packets = [np.empty((0, 2), np.int64)]
    while (packet := _packet(data, path)) is not None:
        packets.append(packet)
    words = np.concatenate(packets)
    words = words[words[:, 0] & 1 == 1]  # the others were marked invalid by a filter
    address, t = words[:, 0], words[:, 1]
    return Events(t, address >> 17 & 0x7FFF, address >> 2 & 0x7FFF, address >> 1 & 1)


def _packet(file: BinaryIO, path: str | os.PathLike[str]) -> NDArray[np.int64] | None:
    """The words ``[n, 2]`` of the next packet, address and time; None at the end of the file."""
    head = file.read(_PACKET.itemsize)
    if not head:
        return None
    if len(head) < _PACKET.itemsize:
        raise ValueError(f"{path} is cut within the head of a packet")
    packet = np.frombuffer(head, _PACKET)[0]
    size, capacity, number = (int(packet[name]) for name in ("size", "capacity", "number"))
    body = file.read(size * capacity)
    if len(body) < size * capacity:
        raise ValueError(f"{path} is cut within a packet of {capacity} events")
    if packet["type"] != _POLARITY:
        return np.empty((0, 2), np.int64)
    words = np.frombuffer(body, "<u4").reshape(-1, 2)[:number].astype(np.int64)
    words[:, 1] += int(packet["overflow"]) << 31
    return words


def event_frames(
    events: Events,
    number: int,
    *,
    by: str = "number",
    shape: tuple[int, int] = (128, 128),
    size: int | None = None,
) -> Tensor:
    """Count the events of every pixel in ``number`` pieces of a recording.

    Args:
        events: the recording, in order of time.
        number: of frames, T.
        by: "number" cuts it into pieces of equally many events, "time" of equally long; what
            remains by rounding goes to the last.
        shape: ``(H, W)`` of the camera.
        size: scale the frames to this side, bilinearly between the nearest pixels.

    Returns:
        float32 ``[T, 2, H, W]``; channel 0 counts darker, 1 brighter.

    Raises:
        ValueError: fewer events (or microseconds) than frames, pixels outside ``shape``, or an
            unknown ``by``.

    Source: what SpikingJelly does (``integrate_events_by_fixed_frames_number``), since the
    published networks were trained on its frames.

    >>> t = np.arange(8)
    >>> event_frames(Events(t, t % 2, t * 0, t * 0 + 1), 4, shape=(1, 2))[:, 1, 0]
    tensor([[1., 1.],
            [1., 1.],
            [1., 1.],
            [1., 1.]])
    """
    if by not in ("number", "time"):
        raise ValueError(unknown_name("way to cut a recording", by, ("number", "time")))
    n = len(events)
    length = n if by == "number" else int(events.t[-1] - events.t[0]) if n else 0
    if length < number:
        unit = "events" if by == "number" else "microseconds"
        raise ValueError(f"the recording has {length} {unit}, too few for {number} frames")
    place = np.arange(n) if by == "number" else events.t - events.t[0]
    step = np.minimum(place // (length // number), number - 1)
    frames = _counted(events, step, number, shape)
    if size is None or shape == (size, size):
        return frames
    return F.interpolate(frames, (size, size), mode="bilinear", align_corners=False)


def event_slices(
    events: Events, start: int, length: int, number: int, *, shape: tuple[int, int]
) -> Tensor:
    """Count the events of every pixel in equal slices of a stretch of time.

    Args:
        events: the recording, in order of time.
        start: of the stretch, in microseconds.
        length: of it; at least ``number`` microseconds.
        number: of slices, T.
        shape: ``(H, W)`` of the camera.

    Returns:
        float32 ``[T, 2, H, W]``; channel 0 counts darker, 1 brighter. No event, all zeros.

    Raises:
        ValueError: the stretch is too short, or pixels lie outside ``shape``.

    >>> t = np.arange(8)
    >>> event_slices(Events(t, t * 0, t * 0, t % 2), 2, 4, 2, shape=(1, 1)).flatten(1)
    tensor([[1., 1.],
            [1., 1.]])
    """
    if length < number or number < 1:
        raise ValueError(f"{length} microseconds are too few for {number} slices")
    inside = events.between(start, start + length)
    return _counted(inside, (inside.t - start) * number // length, number, shape)


def _counted(events: Events, step: Integers, number: int, shape: tuple[int, int]) -> Tensor:
    """How often each pixel saw darker and brighter in each step, ``[T, 2, H, W]``."""
    height, width = shape
    if len(events) and (events.x.max() >= width or events.y.max() >= height):
        raise ValueError(
            f"the recording has pixel ({events.x.max()}, {events.y.max()}), outside "
            f"{width} x {height}"
        )
    cell = ((step * 2 + events.p) * height + events.y) * width + events.x
    counts = np.bincount(cell, minlength=number * 2 * height * width)
    return torch.from_numpy(counts.reshape(number, 2, height, width).astype(np.float32))
