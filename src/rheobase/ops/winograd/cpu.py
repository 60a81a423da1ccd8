"""3x3 convolution of images ``[N, H, W, C]`` and its weight's gradient, by tiles, on the CPU.

Tile m covers 4x4 output pixels; its 36 points lie `sizes.apart`, so that each of the 36
products with the weights is one matrix product. ``wide`` is the number of channels, padded as
products ask for; what lies in the padding is of no account. The interpolation points are 0, 1, -1,
1/2, -2 and infinity: of the small ones those that lose least to rounding. Images may be bfloat16
(their bits in int16); all else is float32.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import fetch, named
from rheobase.ops.products.sizes import ROWS
from rheobase.ops.products.tiles import multiply
from rheobase.ops.winograd import sizes
from rheobase.ops.winograd.transform import Matrix, transform

__all__ = ["convolve", "weight_gradient"]

# Images to tiles, B^T; products to images, A^T; the gradient of images to that of products, A.
_TO_TILES = (
    (1.0, -1.5, -2.0, 1.5, 1.0, 0.0),
    (0.0, -1.0, 0.5, 2.5, 1.0, 0.0),
    (0.0, 1.0, -2.5, 0.5, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 0.5, -1.0, -0.5, 1.0, 0.0),
    (0.0, 1.0, -1.5, -2.0, 1.5, 1.0),
)
_FROM_TILES = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 0.5, -2.0, 0.0),
    (0.0, 1.0, 1.0, 0.25, 4.0, 0.0),
    (0.0, 1.0, -1.0, 0.125, -8.0, 1.0),
)
_GRADIENT_TO_TILES = tuple(zip(*_FROM_TILES, strict=True))

apart = njit(nogil=True, inline="always")(sizes.apart)

# The point (1, 1) goes to each of the 16 pixels once: a bias there is one everywhere.
_BIAS = 7


def _tile_transform(
    name: str, matrix: Matrix, side: int, margin: int, back: bool = False
) -> Callable[..., Any]:
    """The transform of tiles, each of ``side`` pixels a side from ``margin`` outside of it on.

    ``run(image, beyond, tiles, first, count, room, wide, height, width, channels)`` takes ``count``
    tiles from ``first`` on from the image into ``tiles``, 36 times ``[room, wide]``, or ``back``.
    ``beyond`` is the line of channels that stands for pixels outside of the image.
    """
    convert = transform(name, matrix)

    @njit(nogil=True, error_model="numpy")
    @named(name)
    def run(image, beyond, tiles, first, count, room, wide, height, width, channels):
        pixels, points = np.empty(side * side, np.int64), np.empty(36, np.int64)
        line = channels * image.itemsize
        down, across = (height + 3) // 4, (width + 3) // 4
        for m in range(count):
            number, tile = (first + m) // (down * across), (first + m) % (down * across)
            top, left = 4 * (tile // across) - margin, 4 * (tile % across) - margin
            for i in range(side):
                for j in range(side):
                    row, column = top + i, left + j
                    place = _address(beyond)
                    if 0 <= row < height and 0 <= column < width:
                        at = (number * height + row) * width + column
                        place = _address(image) + at * line
                    pixels[i * side + j] = place
            for k in range(36):
                points[k] = _address(tiles) + 4 * (k * apart(room, wide) + m * wide)
            if back:
                convert(points, pixels, tiles, image, channels)
            else:
                convert(pixels, points, image, tiles, channels)

    return run


@njit(nogil=True, inline="always")
def _address(array):
    return np.int64(array.ctypes.data)


_to_tiles = _tile_transform("to_tiles", _TO_TILES, 6, 1)
_from_tiles = _tile_transform("from_tiles", _FROM_TILES, 4, 0, back=True)
_gradient_to_tiles = _tile_transform("gradient_to_tiles", _GRADIENT_TO_TILES, 4, 0)


@njit(nogil=True, error_model="numpy")
def _ask_for(image, start, first, count, channels, part):
    """Fetch one of 36 parts of the pixels of ``count`` tiles from ``first`` on; 0 is at ``start``.

    Products leave the memory idle, for which the next transform would wait. Where 4 does not divide
    the image, the pixels are nearly those.
    """
    size = 16 * channels * count // 36
    begin = start + 16 * channels * first + part * size
    for at in range(begin, begin + size, 64 // image.itemsize):
        fetch(_address(image) + at * image.itemsize)


@njit(nogil=True, inline="always")
def _own(scratch, chunk, room, wide_in, wide_out):
    """The part of ``scratch`` for who begins with this chunk: room for tiles before and after."""
    before, after = 36 * apart(room, wide_in), 36 * apart(room, wide_out)
    first = chunk * (before + after)
    between = first + before
    return scratch[first:between], scratch[between : between + after]


@njit(nogil=True, error_model="numpy")
def convolve(
    first_chunk, last_chunk, x, weight, bias, y, scratch, total, chunk, room, height, width,
    channels, outputs, wide_in, wide_out,
):  # fmt: skip
    """Convolution of chunks of tiles, ``room`` at a time.

    ``weight`` is ``[36, channels, wide_out]``.
    """
    tiles, products = _own(scratch, first_chunk, room, wide_in, wide_out)
    zeros, anywhere = np.zeros(channels, x.dtype), np.empty(outputs, y.dtype)
    for first in range(first_chunk * chunk, min(last_chunk * chunk, total), room):
        count = min(room, min(last_chunk * chunk, total) - first)
        _to_tiles(x, zeros, tiles, first, count, room, wide_in, height, width, channels)
        rows = (count + ROWS - 1) // ROWS * ROWS
        for k in range(36):
            _ask_for(x, width * channels, first + room, room, channels, k)
            into = products[k * apart(room, wide_out) :]
            if k == _BIAS:
                for row in range(count):
                    into[row * wide_out : row * wide_out + outputs] = bias
            multiply(
                into, wide_out, tiles[k * apart(room, wide_in) :], wide_in, 1,
                weight[k * channels * wide_out :], wide_out,
                rows, wide_out, channels, k == _BIAS,
            )  # fmt: skip
        _from_tiles(y, anywhere, products, first, count, room, wide_out, height, width, outputs)


@njit(nogil=True, error_model="numpy")
def weight_gradient(
    first_chunk, last_chunk, x, g, sums, scratch, total, chunk, room, height, width,
    channels, outputs, wide_in, wide_out,
):  # fmt: skip
    """Each chunk's sum over its tiles, ``[chunks, 36, wide_in, wide_out]``."""
    tiles, gradient = _own(scratch, first_chunk, room, wide_in, wide_out)
    zeros, no_gradient = np.zeros(channels, x.dtype), np.zeros(outputs, g.dtype)
    size = wide_in * wide_out
    for which in range(first_chunk, last_chunk):
        for first in range(which * chunk, min((which + 1) * chunk, total), room):
            count = min(room, min((which + 1) * chunk, total) - first)
            _to_tiles(x, zeros, tiles, first, count, room, wide_in, height, width, channels)
            _gradient_to_tiles(
                g, no_gradient, gradient, first, count, room, wide_out, height, width, outputs
            )
            for k in range(36):
                _ask_for(x, width * channels, first + room, room, channels, k)
                _ask_for(g, 0, first + room, room, outputs, k)
                multiply(
                    sums[(which * 36 + k) * size :], wide_out,
                    tiles[k * apart(room, wide_in) :], 1, wide_in,
                    gradient[k * apart(room, wide_out) :], wide_out,
                    wide_in, wide_out, count, first > which * chunk,
                )  # fmt: skip
