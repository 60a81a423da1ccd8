"""Batch norm but for its last step on the GPU: see `rheobase.ops.batch_norm`.

Sums over a batch are taken in parts, one for each program, and the parts added in float64 in a
fixed order: two runs give the same bits.
"""

# Triton compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rheobase.ops.scan.layout import compute_dtype, flat

__all__ = ["add_affine_", "gradients", "statistics"]

_TILE = 2048  # values that a program holds
_PROGRAMS = 1056  # eight for each multiprocessor of a large GPU
_CHANNELS = 16  # of one program of the small kernels
_PARTS = 64  # that are added up at once
_COLUMNS = 1024


def statistics(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int, inner: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, 1 / sqrt(variance + eps), gain and shift, each ``[C]``.

    Mean and inverse are float64, the others of the dtype of the arithmetic.

    Args:
        x: ``[T, N, C, ...]`` with dense rows.
        weight: ``[C]``.
        bias: ``[C]``.
        eps: added to the variance.
        count: C.
        inner: how far apart channels lie in memory.
    """
    steps, size = x.shape[0], x[0].numel()
    data, x_step = flat(x)
    compute = compute_dtype(x)
    rows = steps * (size // (count * inner))
    shape = _tile(count if inner == 1 else inner)
    across = triton.cdiv(count, shape[1]) if inner == 1 else count
    parts = max(1, min(_PROGRAMS // across, triton.cdiv(rows, shape[0])))
    sums = x.new_empty(parts, 2, count, dtype=compute)
    exact = x.new_empty(2, count, dtype=torch.float64)
    found = x.new_empty(3, count, dtype=compute)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        kernel = _sums_of_columns if inner == 1 else _sums_of_planes
        kernel[(across, parts)](
            data, x_step, sums, rows, rows // steps, count, inner, triton.cdiv(rows, parts),
            ROWS=shape[0], WIDTH=shape[1],
        )  # fmt: skip
        _finish[(triton.cdiv(count, _CHANNELS),)](
            sums, data, weight, bias, exact, found, parts, float(x.numel() // count), eps, count,
            inner, AT_ONCE=_PARTS, BLOCK=_CHANNELS,
        )  # fmt: skip
    return exact[0], found[0], exact[1], found[1], found[2]


def gradients(
    x: Tensor, g_gain: Tensor, g_shift: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope and offset of what `add_affine_` adds; the gradients of weight and bias; each ``[C]``.

    Args:
        x: ``[T, N, C, ...]``.
        g_gain: the gradient of the gain.
        g_shift: the gradient of the shift.
        weight: the norm's.
        mean: from `statistics`.
        inverse: from `statistics`.
    """
    count = len(weight)
    affine = weight.new_empty(2, count, dtype=compute_dtype(x))
    out = weight.new_empty(2, count)
    with torch.cuda.device_of(weight):  # type: ignore[no-untyped-call]
        _gradients[(triton.cdiv(count, _CHANNELS),)](
            g_gain, g_shift, weight, mean, inverse, affine, out, float(x.numel() // count), count,
            BLOCK=_CHANNELS,
        )  # fmt: skip
    return affine[0], affine[1], out[0], out[1]


def add_affine_(
    g: Tensor, x: Tensor, slope: Tensor, offset: Tensor, count: int, inner: int
) -> None:
    """``g += slope * x + offset`` in place; ``slope`` and ``offset`` are ``[C]``."""
    steps, size = x.shape[0], x[0].numel()
    data, x_step = flat(x)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _add_affine[(triton.cdiv(size, _COLUMNS), steps)](
            g, data, x_step, slope, offset, size, count, inner, BLOCK=_COLUMNS
        )


def _tile(width: int) -> tuple[int, int]:
    """Rows and columns of a program's tile, powers of two."""
    columns = min(triton.next_power_of_2(width), 256)
    return _TILE // columns, columns


@triton.jit
def _sums_of_planes(
    x, x_step: tl.int64, sums, rows, batch, count, inner, share,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Channels first: a program sums one channel of its share of the samples (of all steps)."""
    channel = tl.program_id(0)
    part = tl.program_id(1)
    real = sums.dtype.element_ty
    origin = tl.load(x + channel.to(tl.int64) * inner).to(real)
    total = tl.zeros([ROWS, WIDTH], real)
    square = tl.zeros([ROWS, WIDTH], real)
    stop = tl.minimum(rows, (part + 1) * share)
    for first in range(part * share, stop, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        n = (row % batch).to(tl.int64)
        start = x + (row // batch) * x_step + (n * count + channel) * inner
        for column in range(0, inner, WIDTH):
            at = column + tl.arange(0, WIDTH)[None, :]
            inside = (row < stop) & (at < inner)
            value = tl.load(start + at, mask=inside, other=0.0).to(real)
            apart = tl.where(inside, value - origin, 0.0)
            total += apart
            square += apart * apart
    into = sums + part * 2 * count + channel
    tl.store(into, tl.sum(tl.sum(total, axis=1), axis=0))
    tl.store(into + count, tl.sum(tl.sum(square, axis=1), axis=0))


@triton.jit
def _sums_of_columns(
    x, x_step: tl.int64, sums, rows, batch, count, inner, share,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Channels last: a program sums some channels of its share of the rows (of all steps)."""
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    part = tl.program_id(1)
    real = sums.dtype.element_ty
    origin = tl.load(x + channel, mask=channel < count, other=0.0).to(real)[None, :]
    total = tl.zeros([ROWS, WIDTH], real)
    square = tl.zeros([ROWS, WIDTH], real)
    stop = tl.minimum(rows, (part + 1) * share)
    for first in range(part * share, stop, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        start = x + (row // batch) * x_step + (row % batch).to(tl.int64) * count
        inside = (row < stop) & (channel < count)[None, :]
        value = tl.load(start + channel[None, :], mask=inside, other=0.0).to(real)
        apart = tl.where(inside, value - origin, 0.0)
        total += apart
        square += apart * apart
    into = sums + part * 2 * count + channel
    tl.store(into, tl.sum(total, axis=0), mask=channel < count)
    tl.store(into + count, tl.sum(square, axis=0), mask=channel < count)


@triton.jit
def _finish(
    sums, x, weight, bias, exact, found, parts, values: tl.float64, eps: tl.float64, count, inner,
    AT_ONCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < count
    origin = tl.load(x + channel.to(tl.int64) * inner, mask=inside, other=0.0).to(tl.float64)
    totals = tl.zeros([AT_ONCE, BLOCK], tl.float64)
    squares = tl.zeros([AT_ONCE, BLOCK], tl.float64)
    for first in range(0, parts, AT_ONCE):
        part = first + tl.arange(0, AT_ONCE)[:, None]
        start = sums + part * 2 * count + channel[None, :]
        there = (part < parts) & inside[None, :]
        totals += tl.load(start, mask=there, other=0.0).to(tl.float64)
        squares += tl.load(start + count, mask=there, other=0.0).to(tl.float64)
    total, square = tl.sum(totals, axis=0) / values, tl.sum(squares, axis=0)
    mean = origin + total
    variance = tl.maximum(square / values - total * total, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float64) * inverse
    shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float64) - mean * gain
    tl.store(exact + channel, mean, mask=inside)
    tl.store(exact + count + channel, inverse, mask=inside)
    tl.store(found + channel, variance, mask=inside)
    tl.store(found + count + channel, gain, mask=inside)
    tl.store(found + 2 * count + channel, shift, mask=inside)


@triton.jit
def _gradients(
    g_gain, g_shift, weight, mean, inverse, affine, out, values: tl.float64, count,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < count
    by_shift = tl.load(g_shift + channel, mask=inside, other=0.0).to(tl.float64)
    by_gain = tl.load(g_gain + channel, mask=inside, other=0.0).to(tl.float64)
    mean_c = tl.load(mean + channel, mask=inside, other=0.0)
    inverse_c = tl.load(inverse + channel, mask=inside, other=0.0)
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float64) * inverse_c
    # The shift holds the gain too, and the gain is weight / sqrt(variance + eps).
    by_gain -= mean_c * by_shift
    slope = -gain * inverse_c * inverse_c * by_gain / values
    offset = -gain * by_shift / values - slope * mean_c
    tl.store(affine + channel, slope, mask=inside)
    tl.store(affine + count + channel, offset, mask=inside)
    tl.store(out + channel, by_gain * inverse_c, mask=inside)
    tl.store(out + count + channel, by_shift, mask=inside)


@triton.jit
def _add_affine(g, x, x_step: tl.int64, slope, offset, size, count, inner, BLOCK: tl.constexpr):
    step = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = m < size
    channel = (m // inner) % count
    a = tl.load(slope + channel)
    b = tl.load(offset + channel)
    at = g + step * size + m
    value = tl.load(x + step * x_step + m, mask=inside, other=0.0).to(slope.dtype.element_ty)
    before = tl.load(at, mask=inside, other=0.0).to(slope.dtype.element_ty)
    tl.store(at, before + (a * value + b), mask=inside)
