"""Max pooling on the GPU of what a batch norm will make of its input; see `rheobase.ops.pool`."""

# Triton compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["choose", "spread"]

_BLOCK = 512


def choose(
    x: Tensor, weight: Tensor, kernel: int, stride: int, padding: int
) -> tuple[Tensor, Tensor]:
    """The greatest value of each window, the least where ``weight`` is negative; and which it was.

    Args:
        x: ``[N, C, H, W]``, contiguous or channels last.
        weight: ``[C]``.
        kernel: side of a window.
        stride: from one window to the next.
        padding: on each side, never chosen.

    Returns:
        ``[N, C, H', W']`` in the memory order of ``x``, and the place within the window, uint8.
    """
    n, c, height, width = x.shape
    tall, wide = (((size + 2 * padding - kernel) // stride) + 1 for size in (height, width))
    last = not x.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    out = torch.empty((n, c, tall, wide), dtype=x.dtype, device=x.device, memory_format=order)
    place = torch.empty_like(out, dtype=torch.uint8)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _choose[(triton.cdiv(out.numel(), _BLOCK),)](
            x, weight, out, place, out.numel(), c, height, width, tall, wide, LAST=last,
            KERNEL=kernel, STRIDE=stride, PADDING=padding, BLOCK=_BLOCK,
        )  # fmt: skip
    return out, place


def spread(g: Tensor, place: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The gradient of ``x``: each value of ``g`` goes to the place that was chosen.

    ``g`` and ``place`` have the memory order of ``x``.
    """
    _, c, height, width = x.shape
    tall, wide = place.shape[2:]
    gx = torch.empty_like(x)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _spread[(triton.cdiv(x.numel(), _BLOCK),)](
            g, place, gx, x.numel(), c, height, width, tall, wide, LAST=not x.is_contiguous(),
            KERNEL=kernel, STRIDE=stride, PADDING=padding, BLOCK=_BLOCK,
        )  # fmt: skip
    return gx


@triton.jit
def _coordinates(at, c, height, width, LAST: tl.constexpr):
    """Image, channel, row and column of an element, from its place in memory."""
    if LAST:
        channel, pixel = at % c, at // c
        return pixel // width // height, channel, pixel // width % height, pixel % width
    plane, pixel = at // (height * width), at % (height * width)
    return plane // c, plane % c, pixel // width, pixel % width


@triton.jit
def _address(n, channel, row, column, c, height, width, LAST: tl.constexpr):
    if LAST:
        return ((n * height + row) * width + column) * c + channel
    return ((n * c + channel) * height + row) * width + column


@triton.jit
def _choose(
    x, weight, out, place, size, c, height, width, tall, wide, LAST: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    n, channel, i, j = _coordinates(at, c, tall, wide, LAST)
    negative = tl.load(weight + channel) < 0.0
    real = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    best = tl.full([BLOCK], float("-inf"), real)
    chosen = tl.zeros([BLOCK], tl.int32)
    for k in tl.static_range(KERNEL * KERNEL):
        row, column = i * STRIDE - PADDING + k // KERNEL, j * STRIDE - PADDING + k % KERNEL
        there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        element = _address(n, channel, row, column, c, height, width, LAST)
        value = tl.load(x + element, mask=there, other=0.0).to(real)
        value = tl.where(negative, -value, value)
        # A NaN stays, as in PyTorch's pooling.
        better = there & ((value > best) | (value != value))
        best = tl.where(better, value, best)
        chosen = tl.where(better, k, chosen)
    tl.store(out + at, tl.where(negative, -best, best), mask=inside)
    tl.store(place + at, chosen.to(tl.uint8), mask=inside)


@triton.jit
def _spread(
    g, place, gx, size, c, height, width, tall, wide, LAST: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    n, channel, row, column = _coordinates(at, c, height, width, LAST)
    real = tl.float64 if gx.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([BLOCK], real)
    # So many windows hold a pixel along each axis.
    EACH: tl.constexpr = (KERNEL + STRIDE - 1) // STRIDE
    for k in tl.static_range(EACH * EACH):
        i, j = (row + PADDING) // STRIDE - k // EACH, (column + PADDING) // STRIDE - k % EACH
        down, right = row + PADDING - i * STRIDE, column + PADDING - j * STRIDE
        there = inside & (i >= 0) & (i < tall) & (j >= 0) & (j < wide)
        there &= (down < KERNEL) & (right < KERNEL)
        window = _address(n, channel, i, j, c, tall, wide, LAST)
        chosen = tl.load(place + window, mask=there, other=255).to(tl.int32)
        mine = there & (chosen == down * KERNEL + right)
        total += tl.load(g + window, mask=mine, other=0.0).to(real)
    tl.store(gx + at, total, mask=inside)
