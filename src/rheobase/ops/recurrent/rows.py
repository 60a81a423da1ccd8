"""The parts of a recurrent layer's CPU kernels that no neuron changes: products and sums."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.events.rows import add_parts
from rheobase.ops.numba_lang import window
from rheobase.ops.products.sizes import COLUMNS, ROWS
from rheobase.ops.products.tiles import multiply

__all__ = ["BLOCK", "add_products"]

BLOCK = 128
"""Features of one slot of the kernels' working memory."""

# Rows of a matrix of which a tile's columns stay in the first cache while several samples use them.
_DEPTH = 64


@njit(nogil=True, error_model="numpy")
def add_products(into, matrix, values, group):
    """``into[k] += values[k] @ matrix`` for ``group`` samples k, their rows one behind another."""
    width = values.size // group
    every = np.arange(width).astype(np.int32)
    whole, tiles = group - group % ROWS, width - width % COLUMNS
    for lo in range(0, width, _DEPTH):
        count = min(_DEPTH, width - lo)
        multiply(
            into, width, values[lo:], width, 1, matrix[lo * width :], width, whole, tiles, count, 1
        )
        for k in range(whole if tiles == width else 0, group):
            first = tiles if k < whole else 0
            some = window(values, k * width + lo, count)
            rest = window(into, k * width + first, width - first)
            add_parts(rest, matrix[lo * width + first :], some, every[:count], count, width)
