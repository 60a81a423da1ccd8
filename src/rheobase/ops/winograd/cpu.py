"""Winograd's transforms of F(4x4, 3x3) on the CPU: images ``[N, H, W, C]`` to 6x6 tiles and back.

Tile m covers 4x4 output pixels; its 36 transformed values lie ``room * wide`` apart, so that each
of the 36 products with the weights is one matrix product. ``wide`` is the number of channels,
padded as products ask for; what lies in the padding is of no account. The interpolation points are
0, 1, -1, 1/2, -2 and infinity: of the small ones those that lose least to rounding.

A transform of a tile is that of its six columns, then that of its six rows; every loop over
channels is one of vectors. Images may be bfloat16 (their bits in int16); all else is float32.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import (
    arrays_do_not_overlap,
    from_memory,
    prefer_wide_vectors,
    to_memory,
)
from rheobase.ops.products.sizes import ROWS
from rheobase.ops.products.tiles import multiply

__all__ = ["convolve", "weight_gradient"]

_QUARTER, _EIGHTH, _HALF = np.float32(0.25), np.float32(0.125), np.float32(0.5)
_THREE_HALVES, _FIVE_HALVES = np.float32(1.5), np.float32(2.5)
_TWO, _FOUR, _EIGHT = np.float32(2.0), np.float32(4.0), np.float32(8.0)


@njit(nogil=True, fastmath={"contract"})
def _spread(d0, d1, d2, d3, d4, d5, v0, v1, v2, v3, v4, v5, n):
    """B^T d of six lines."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for c in range(n):
        a0, a1, a2 = from_memory(d0[c]), from_memory(d1[c]), from_memory(d2[c])
        a3, a4, a5 = from_memory(d3[c]), from_memory(d4[c]), from_memory(d5[c])
        v0[c] = (a0 + a4) + _THREE_HALVES * (a3 - a1) - _TWO * a2
        v1[c] = (a4 - a1) + _HALF * a2 + _FIVE_HALVES * a3
        v2[c] = (a4 + a1) - _FIVE_HALVES * a2 + _HALF * a3
        v3[c] = (a4 - a2) + _TWO * (a3 - a1)
        v4[c] = (a4 - a2) + _HALF * (a1 - a3)
        v5[c] = (a1 + a5) + _THREE_HALVES * (a4 - a2) - _TWO * a3


@njit(nogil=True, fastmath={"contract"})
def _gather(m0, m1, m2, m3, m4, m5, bias, y0, y1, y2, y3, n):
    """A^T m of six lines: four, and a bias to each."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for c in range(n):
        a0, a1, a2, a3, a4, a5 = m0[c], m1[c], m2[c], m3[c], m4[c], m5[c]
        plus, minus = a1 + a2, a1 - a2
        b = bias[c]
        y0[c] = to_memory((a0 + plus) + (a3 + a4) + b, y0)
        y1[c] = to_memory(minus + _HALF * a3 - _TWO * a4 + b, y1)
        y2[c] = to_memory(plus + _QUARTER * a3 + _FOUR * a4 + b, y2)
        y3[c] = to_memory((minus + a5) + _EIGHTH * a3 - _EIGHT * a4 + b, y3)


@njit(nogil=True, fastmath={"contract"})
def _spread_gradient(g0, g1, g2, g3, q0, q1, q2, q3, q4, q5, n):
    """A g of four lines: six."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for c in range(n):
        a0, a1 = from_memory(g0[c]), from_memory(g1[c])
        a2, a3 = from_memory(g2[c]), from_memory(g3[c])
        even, odd = a0 + a2, a1 + a3
        q0[c] = a0
        q1[c] = even + odd
        q2[c] = even - odd
        q3[c] = (a0 + _HALF * a1) + (_QUARTER * a2 + _EIGHTH * a3)
        q4[c] = (a0 - _TWO * a1) + (_FOUR * a2 - _EIGHT * a3)
        q5[c] = a3


@njit(nogil=True, inline="always")
def _line(x, zeros, row, col, height, width, image, channels):
    """The channels of one pixel, or zeros outside of the image."""
    if row < 0 or row >= height or col < 0 or col >= width:
        return zeros
    start = ((image * height + row) * width + col) * channels
    return x[start : start + channels]


@njit(nogil=True, inline="always")
def _cell(tiles, k, m, count, wide, channels):
    start = (k * count + m) * wide
    return tiles[start : start + channels]


@njit(nogil=True, error_model="numpy")
def _to_tiles(x, tiles, first, count, room, wide, height, width, channels):
    """B^T d B of ``count`` tiles from ``first`` on, into ``tiles`` ``[36, room, channels]``."""
    zeros = np.zeros(channels, x.dtype)
    half = np.empty(36 * channels, np.float32)
    down, across = (height + 3) // 4, (width + 3) // 4
    for m in range(count):
        image, place = (first + m) // (down * across), (first + m) % (down * across)
        top, left = 4 * (place // across) - 1, 4 * (place % across) - 1
        for j in range(6):
            _spread(
                _line(x, zeros, top, left + j, height, width, image, channels),
                _line(x, zeros, top + 1, left + j, height, width, image, channels),
                _line(x, zeros, top + 2, left + j, height, width, image, channels),
                _line(x, zeros, top + 3, left + j, height, width, image, channels),
                _line(x, zeros, top + 4, left + j, height, width, image, channels),
                _line(x, zeros, top + 5, left + j, height, width, image, channels),
                _cell(half, 0, j, 6, channels, channels),
                _cell(half, 1, j, 6, channels, channels),
                _cell(half, 2, j, 6, channels, channels),
                _cell(half, 3, j, 6, channels, channels),
                _cell(half, 4, j, 6, channels, channels),
                _cell(half, 5, j, 6, channels, channels),
                channels,
            )
        for i in range(6):
            _spread(
                _cell(half, i, 0, 6, channels, channels),
                _cell(half, i, 1, 6, channels, channels),
                _cell(half, i, 2, 6, channels, channels),
                _cell(half, i, 3, 6, channels, channels),
                _cell(half, i, 4, 6, channels, channels),
                _cell(half, i, 5, 6, channels, channels),
                _cell(tiles, 6 * i, m, room, wide, channels),
                _cell(tiles, 6 * i + 1, m, room, wide, channels),
                _cell(tiles, 6 * i + 2, m, room, wide, channels),
                _cell(tiles, 6 * i + 3, m, room, wide, channels),
                _cell(tiles, 6 * i + 4, m, room, wide, channels),
                _cell(tiles, 6 * i + 5, m, room, wide, channels),
                channels,
            )


@njit(nogil=True, error_model="numpy")
def _from_tiles(tiles, bias, y, first, count, room, wide, height, width, channels):
    """A^T m A of ``count`` tiles and the bias into the pixels of ``y`` that they cover."""
    zeros = np.zeros(channels, np.float32)
    half = np.empty(24 * channels, np.float32)
    beyond = np.empty(channels, y.dtype)
    down, across = (height + 3) // 4, (width + 3) // 4
    for m in range(count):
        image, place = (first + m) // (down * across), (first + m) % (down * across)
        top, left = 4 * (place // across), 4 * (place % across)
        for j in range(6):
            _gather(
                _cell(tiles, j, m, room, wide, channels),
                _cell(tiles, 6 + j, m, room, wide, channels),
                _cell(tiles, 12 + j, m, room, wide, channels),
                _cell(tiles, 18 + j, m, room, wide, channels),
                _cell(tiles, 24 + j, m, room, wide, channels),
                _cell(tiles, 30 + j, m, room, wide, channels),
                zeros,
                _cell(half, 0, j, 6, channels, channels),
                _cell(half, 1, j, 6, channels, channels),
                _cell(half, 2, j, 6, channels, channels),
                _cell(half, 3, j, 6, channels, channels),
                channels,
            )
        for i in range(min(4, height - top)):
            _gather(
                _cell(half, i, 0, 6, channels, channels),
                _cell(half, i, 1, 6, channels, channels),
                _cell(half, i, 2, 6, channels, channels),
                _cell(half, i, 3, 6, channels, channels),
                _cell(half, i, 4, 6, channels, channels),
                _cell(half, i, 5, 6, channels, channels),
                bias,
                _line(y, beyond, top + i, left, height, width, image, channels),
                _line(y, beyond, top + i, left + 1, height, width, image, channels),
                _line(y, beyond, top + i, left + 2, height, width, image, channels),
                _line(y, beyond, top + i, left + 3, height, width, image, channels),
                channels,
            )


@njit(nogil=True, error_model="numpy")
def _gradient_to_tiles(g, tiles, first, count, room, wide, height, width, channels):
    """A g A^T of ``count`` tiles: the gradient of the tiles that `_from_tiles` read."""
    zeros = np.zeros(channels, g.dtype)
    half = np.empty(24 * channels, np.float32)
    down, across = (height + 3) // 4, (width + 3) // 4
    for m in range(count):
        image, place = (first + m) // (down * across), (first + m) % (down * across)
        top, left = 4 * (place // across), 4 * (place % across)
        for j in range(4):
            _spread_gradient(
                _line(g, zeros, top, left + j, height, width, image, channels),
                _line(g, zeros, top + 1, left + j, height, width, image, channels),
                _line(g, zeros, top + 2, left + j, height, width, image, channels),
                _line(g, zeros, top + 3, left + j, height, width, image, channels),
                _cell(half, 0, j, 4, channels, channels),
                _cell(half, 1, j, 4, channels, channels),
                _cell(half, 2, j, 4, channels, channels),
                _cell(half, 3, j, 4, channels, channels),
                _cell(half, 4, j, 4, channels, channels),
                _cell(half, 5, j, 4, channels, channels),
                channels,
            )
        for i in range(6):
            _spread_gradient(
                _cell(half, i, 0, 4, channels, channels),
                _cell(half, i, 1, 4, channels, channels),
                _cell(half, i, 2, 4, channels, channels),
                _cell(half, i, 3, 4, channels, channels),
                _cell(tiles, 6 * i, m, room, wide, channels),
                _cell(tiles, 6 * i + 1, m, room, wide, channels),
                _cell(tiles, 6 * i + 2, m, room, wide, channels),
                _cell(tiles, 6 * i + 3, m, room, wide, channels),
                _cell(tiles, 6 * i + 4, m, room, wide, channels),
                _cell(tiles, 6 * i + 5, m, room, wide, channels),
                channels,
            )


@njit(nogil=True, inline="always")
def _own(scratch, chunk, room, wide_in, wide_out):
    """The part of ``scratch`` for who begins with this chunk: room for tiles before and after."""
    first = chunk * 36 * room * (wide_in + wide_out)
    between = first + 36 * room * wide_in
    return scratch[first:between], scratch[between : between + 36 * room * wide_out]


@njit(nogil=True, error_model="numpy")
def convolve(
    first_chunk, last_chunk, x, weight, bias, y, scratch, total, chunk, room, height, width,
    channels, outputs, wide_in, wide_out,
):  # fmt: skip
    """Convolution of chunks of tiles, ``room`` at a time.

    ``weight`` is ``[36, channels, wide_out]``.
    """
    tiles, products = _own(scratch, first_chunk, room, wide_in, wide_out)
    for first in range(first_chunk * chunk, min(last_chunk * chunk, total), room):
        count = min(room, min(last_chunk * chunk, total) - first)
        _to_tiles(x, tiles, first, count, room, wide_in, height, width, channels)
        rows = (count + ROWS - 1) // ROWS * ROWS
        for k in range(36):
            multiply(
                products[k * room * wide_out :], wide_out,
                tiles[k * room * wide_in :], wide_in, 1,
                weight[k * channels * wide_out :], wide_out,
                rows, wide_out, channels, 0,
            )  # fmt: skip
        _from_tiles(products, bias, y, first, count, room, wide_out, height, width, outputs)


@njit(nogil=True, error_model="numpy")
def weight_gradient(
    first_chunk, last_chunk, x, g, sums, scratch, total, chunk, room, height, width,
    channels, outputs, wide_in, wide_out,
):  # fmt: skip
    """Each chunk's sum over its tiles, ``[chunks, 36, wide_in, wide_out]``."""
    tiles, gradient = _own(scratch, first_chunk, room, wide_in, wide_out)
    size = wide_in * wide_out
    for which in range(first_chunk, last_chunk):
        for first in range(which * chunk, min((which + 1) * chunk, total), room):
            count = min(room, min((which + 1) * chunk, total) - first)
            _to_tiles(x, tiles, first, count, room, wide_in, height, width, channels)
            _gradient_to_tiles(g, gradient, first, count, room, wide_out, height, width, outputs)
            for k in range(36):
                multiply(
                    sums[(which * 36 + k) * size :], wide_out,
                    tiles[k * room * wide_in :], 1, wide_in,
                    gradient[k * room * wide_out :], wide_out,
                    wide_in, wide_out, count, first > which * chunk,
                )  # fmt: skip
