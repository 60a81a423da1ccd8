"""1x1 convolutions of images ``[N, C, P]`` and the gradient of their weight, on the CPU."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.products.tiles import multiply
from rheobase.ops.products.turn import turn

__all__ = ["convolve", "weight_gradient"]

# Rows of an image of which a tile's columns stay in the first cache.
_DEPTH = 96


@njit(nogil=True, error_model="numpy")
def convolve(
    first_chunk, last_chunk, x, weight, bias, y, pieces, rows, channels, outputs, pixels
):  # fmt: skip
    """``y[n] = weight x[n] + bias``; a chunk is a piece of an image, ``rows`` of its outputs."""
    for number in range(first_chunk, last_chunk):
        n, first = number // pieces, number % pieces * rows
        last = min(first + rows, outputs)
        into = y[(n * outputs + first) * pixels : (n * outputs + last) * pixels]
        for o in range(first, last):
            into[(o - first) * pixels : (o - first + 1) * pixels] = bias[o]
        for c in range(0, channels, _DEPTH):
            multiply(
                into, pixels, weight[first * channels + c :], channels, 1,
                x[(n * channels + c) * pixels :], pixels,
                last - first, pixels, min(_DEPTH, channels - c), 1,
            )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def weight_gradient(
    first_chunk, last_chunk, x, g, grad, images, chunk, channels, outputs, pixels
):  # fmt: skip
    """``grad = sum of g[n] x[n]^T`` for chunks of channels."""
    first, last = first_chunk * chunk, min(last_chunk * chunk, channels)
    turned = np.empty(pixels * (last - first), np.float32)
    for n in range(images):
        turn(turned, x[(n * channels + first) * pixels :], last - first, pixels)
        multiply(
            grad[first:], channels, g[n * outputs * pixels :], pixels, 1, turned, last - first,
            outputs, last - first, pixels, n > 0,
        )  # fmt: skip
