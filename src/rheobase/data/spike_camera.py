"""Recordings of spike cameras: a bit for every pixel at every tick."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_spike_camera"]


def read_spike_camera(path: str | os.PathLike[str], shape: tuple[int, int] = (250, 400)) -> Tensor:
    """Read a ``.dat`` file of a spike camera (Vidar), or an array ``.npy`` of its frames.

    A ``.dat`` file is frame after frame, row after row from the bottom, eight pixels to a byte, the
    lowest bit first.

    Args:
        path: the file; of an array ``[frames, H, W]`` what is not 0 is a spike.
        shape: ``(H, W)`` of the camera, for ``.dat``.

    Returns:
        uint8 ``[frames, H, W]``, 0 or 1; the first row is the top.

    Raises:
        ValueError: the file is cut or of another camera, or the array has other axes.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "spikes.dat"
    >>> _ = file.write_bytes(bytes([0b00000001, 0b10000000]))
    >>> read_spike_camera(file, shape=(2, 8))
    tensor([[[0, 0, 0, 0, 0, 0, 0, 1],
             [1, 0, 0, 0, 0, 0, 0, 0]]], dtype=torch.uint8)
    """
    path = Path(path)
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        if array.ndim != 3:
            raise ValueError(f"{path} holds no frames [frames, H, W], but {list(array.shape)}")
        return torch.from_numpy((array != 0).astype(np.uint8))
    height, width = shape
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    size, rest = divmod(height * width, 8)
    if rest or not len(raw) or len(raw) % size:
        raise ValueError(
            f"{path} has {len(raw)} bytes, no whole number of frames of {height} x {width} pixels; "
            "give the camera's shape"
        )
    bits = np.unpackbits(raw, bitorder="little").reshape(-1, height, width)
    return torch.from_numpy(bits[:, ::-1].copy())
