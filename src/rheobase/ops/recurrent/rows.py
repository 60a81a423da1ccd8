"""The parts of a recurrent layer's CPU kernels that no neuron changes: products and copies."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.events.rows import add_rows

__all__ = ["BLOCK", "add", "add_products", "copy"]

BLOCK = 128
"""Features of one slot of the kernels' working memory."""

# Numbers of a matrix that stay in the first cache while several samples use them.
_IN_CACHE = 4096


@njit(nogil=True, error_model="numpy")
def copy(into, values):
    """``into[:n] = values`` of n elements."""
    for j in range(values.size):
        into[j] = values[j]


@njit(nogil=True, error_model="numpy")
def add(into, values):
    """``into[:n] += values`` of n elements."""
    for j in range(values.size):
        into[j] += values[j]


@njit(nogil=True, error_model="numpy")
def add_products(into, matrix, values, group):
    """``into[k] += values[k] @ matrix`` for ``group`` samples k, their rows one behind another."""
    width = values.size // group
    every = np.arange(width).astype(np.int32)
    rows = max(4, _IN_CACHE // width)
    for lo in range(0, width, rows):
        which = every[lo : lo + rows]
        for k in range(group):
            start = k * width
            some = values[start + lo : start + lo + which.size]
            add_rows(into[start : start + width], matrix, some, which, which.size)
