"""Winograd's transforms of 3x3 weights to 36 points, and of the points' gradient back.

See `rheobase.ops.winograd.cpu`; here a vector is one of outputs (or inputs, for the kernel turned
round), whose weights lie ``stride`` apart.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import copy
from rheobase.ops.winograd.transform import transform

__all__ = ["gather_weight", "spread_weight"]

_G = (
    (1.0, 0.0, 0.0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0.0, 0.0, 1.0),
)
_spread = transform("spread", _G)
_gather = transform("gather", tuple(zip(*_G, strict=True)))


@njit(nogil=True, inline="always")
def _addresses(array, count, step):
    """Of so many lines that lie ``step`` numbers apart."""
    return np.int64(array.ctypes.data) + array.itemsize * step * np.arange(count)


@njit(nogil=True, inline="always")
def _line(array, number, length):
    return array[number * length : (number + 1) * length]


@njit(nogil=True, inline="always")
def _part(array, number, wide, length):
    """The first ``length`` of a line of ``wide``."""
    return array[number * wide : number * wide + length]


@njit(nogil=True, error_model="numpy")
def spread_weight(
    first_chunk, last_chunk, weight, points, count, length, wide, step, stride, turned, chunk
):
    """G w G^T of kernels: ``points`` is ``[36, count, wide]``, of which ``length`` are written.

    The weights of kernel (i, j) are the nine from ``i * step + j * stride`` on, read from the last
    to the first if ``turned``.
    """
    lines = np.empty(9 * length, np.float32)
    for i in range(first_chunk * chunk, min(last_chunk * chunk, count)):
        for k in range(9):
            line = _line(lines, k, length)
            first = i * step + (8 - k if turned else k)
            for j in range(length):
                line[j] = weight[first + j * stride]
        into = points[i * wide :]
        _spread(
            _addresses(lines, 9, length), _addresses(into, 36, count * wide), lines, points, length
        )


@njit(nogil=True, error_model="numpy")
def gather_weight(
    first_chunk, last_chunk, points, weight, parts, count, length, lines_wide, wide, chunk
):
    """``G^T u G``, ``[length, count, 3, 3]``, of the sum of ``[parts, 36, lines_wide, wide]``."""
    sums = np.empty(36 * length, np.float32)
    lines = np.empty(9 * length, np.float32)
    for i in range(first_chunk * chunk, min(last_chunk * chunk, count)):
        for k in range(36):
            line = _line(sums, k, length)
            copy(line, _part(points, k * lines_wide + i, wide, length))
            for part in range(1, parts):
                line += _part(points, (part * 36 + k) * lines_wide + i, wide, length)
        _gather(_addresses(sums, 36, length), _addresses(lines, 9, length), sums, lines, length)
        for k in range(9):
            line = _line(lines, k, length)
            for j in range(length):
                weight[(j * count + i) * 9 + k] = line[j]
