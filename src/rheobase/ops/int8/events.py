"""Bytes times weights of 8 bits, event by event: a silent input costs nothing.

An input of n is n events. The weights' rows of all events that an output pixel sees are added up in
int16, as long as 256 of them cannot overflow it, and those sums in int32: exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from rheobase.ops.int8.weights import BLOCKS
from rheobase.ops.native import Kernel, imported_kernel, in_chunks

__all__ = ["MAX_EVENTS", "event_conv2d", "weight_rows"]

MAX_EVENTS = 0.4
"""Events an input, above which the dense product is the faster one."""


def weight_rows(values: Tensor) -> Tensor:
    """Weights ``[O, C, h, w]`` int8 as ``[h, w, C, O']``, O' the next multiple of a block."""
    rows = values.permute(2, 3, 1, 0)
    outputs = values.shape[0]
    return torch.nn.functional.pad(rows, (0, -outputs % _block(outputs))).contiguous()


def _block(outputs: int) -> int:
    """The largest block that all but fills."""
    small, large = BLOCKS
    return large if -outputs % large < small else small


def event_conv2d(
    x: Tensor,
    rows: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor | None:
    """``scale * conv2d(x, weights) + bias``, or None where there are too many events.

    Args:
        x: ``[N, C, H, W]`` uint8, channels last.
        rows: `weight_rows` of the weights.
        scale: ``[O]`` float32.
        bias: ``[O]`` float32.
        stride: down and right.
        padding: zeros on either side, down and right.

    Returns:
        ``[N, O, H', W']`` float32, channels last.
    """
    images, inputs, height, width = x.shape
    events = _events(x.permute(0, 2, 3, 1).reshape(-1, inputs), rows.shape[-1])
    if events is None:
        return None
    which, starts, counts = events
    window = tuple(rows.shape[:2])
    spans = zip((height, width), window, stride, padding, strict=True)
    high, wide = ((n + 2 * p - k) // s + 1 for n, k, s, p in spans)
    outputs = scale.numel()
    out = scale.new_empty(images, high, wide, outputs)
    pixels = images * high * wide
    chunks, chunk = in_chunks(pixels)
    traffic = 4 * out.nbytes * window[0] * window[1]
    _convolve(_block(rows.shape[-1]))(
        chunks, traffic, which, starts, counts, rows, scale,
        scale.new_zeros(outputs) if bias is None else bias, out, inputs, outputs, rows.shape[-1],
        height, width, high, wide, *window, *stride, *padding, pixels, chunk,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def _events(x: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """For ``[pixels, C]``: where the rows of a pixel's events begin, in ``width``; where a pixel's
    lie, and how many."""
    pixels, inputs = x.shape
    chunks, chunk = in_chunks(pixels)
    # A pixel is written before its number of events is known.
    room = int(MAX_EVENTS * chunk * inputs) + inputs
    which = torch.empty(chunks * room, dtype=torch.int32)
    starts, counts = torch.zeros(2, pixels, dtype=torch.int64)
    _compress()(chunks, x.nbytes, x, which, starts, counts, inputs, width, room, pixels, chunk)
    return None if int(counts.min()) < 0 else (which, starts, counts)


@cache
def _compress() -> Kernel:
    arrays = {"x": "uint8*", **_EVENTS}
    return _kernel("compress", arrays, ("inputs", "width", "room", "pixels", "chunk"))


@cache
def _convolve(block: int) -> Kernel:
    weights = {"rows": "int8*", "scale": "float32*", "bias": "float32*", "out": "float32*"}
    sizes = (
        "inputs", "outputs", "width", "height", "across", "out_height", "out_width",
        "kernel_height", "kernel_width", "stride_y", "stride_x", "pad_y", "pad_x",
        "pixels", "chunk",
    )  # fmt: skip
    return _kernel(f"convolve_{block}", _EVENTS | weights, sizes)


_EVENTS = {"which": "int32*", "starts": "int64*", "counts": "int64*"}


def _kernel(name: str, arrays: dict[str, str], sizes: Sequence[str]) -> Kernel:
    return imported_kernel("int8.rows", name, arrays | dict.fromkeys(sizes, "int64"))
