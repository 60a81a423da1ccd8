"""The parts of a recurrent layer's CPU kernels that no neuron changes: products and sums."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.events.rows import add_parts
from rheobase.ops.numba_lang import arrays_do_not_overlap, prefer_wide_vectors, window

__all__ = ["BLOCK", "add", "add_products"]

BLOCK = 128
"""Features of one slot of the kernels' working memory."""

# Columns of a sample's sum that stay in registers, and rows of a matrix of which so many columns
# stay in the first cache while several samples use them.
_TILE, _ROWS = 64, 64


@njit(nogil=True, error_model="numpy")
def add(into, values):
    """``into[:n] += values`` of n elements."""
    for j in range(values.size):
        into[j] += values[j]


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _add_tile(a, b, c, d, matrix, w, x, y, z, width):
    """A tile of four rows of the product: each of ``a`` to ``d`` adds up its weights' rows."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for i in range(w.size):
        start = np.uint64(i * width)
        w_i, x_i, y_i, z_i = w[i], x[i], y[i], z[i]
        for k in range(_TILE):
            value = matrix[start + np.uint64(k)]
            a[k] += w_i * value
            b[k] += x_i * value
            c[k] += y_i * value
            d[k] += z_i * value


@njit(nogil=True, error_model="numpy")
def add_products(into, matrix, values, group):
    """``into[k] += values[k] @ matrix`` for ``group`` samples k, their rows one behind another."""
    width = values.size // group
    every = np.arange(width).astype(np.int32)
    whole, tiles = group - group % 4, width - width % _TILE
    for lo in range(0, width, _ROWS):
        count = min(_ROWS, width - lo)
        for first in range(0, tiles, _TILE):
            part = matrix[lo * width + first :]
            for k in range(0, whole, 4):
                at, of = k * width + first, k * width + lo
                _add_tile(
                    window(into, at, _TILE), window(into, at + width, _TILE),
                    window(into, at + 2 * width, _TILE), window(into, at + 3 * width, _TILE),
                    part,
                    window(values, of, count), window(values, of + width, count),
                    window(values, of + 2 * width, count), window(values, of + 3 * width, count),
                    width,
                )  # fmt: skip
        for k in range(whole if tiles == width else 0, group):
            first = tiles if k < whole else 0
            some = window(values, k * width + lo, count)
            rest = window(into, k * width + first, width - first)
            add_parts(rest, matrix[first:], some, every[lo : lo + count], count, width)
