"""Winograd's transforms of 3x3 weights to 36 points, and of the points' gradient back.

See `rheobase.ops.winograd.cpu`; here a vector is one of outputs (or inputs, for the kernel turned
round), whose weights lie ``stride`` apart.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import arrays_do_not_overlap, copy, prefer_wide_vectors

__all__ = ["gather_weight", "spread_weight"]

_TWO, _FOUR, _EIGHT = np.float32(2.0), np.float32(4.0), np.float32(8.0)
_THIRD, _FIFTEENTH = np.float32(1 / 3), np.float32(1 / 15)


@njit(nogil=True, fastmath={"contract"})
def _spread(w0, w1, w2, u0, u1, u2, u3, u4, u5, n):
    """G w of three lines: six."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for c in range(n):
        a, b, d = w0[c], w1[c], w2[c]
        u0[c] = a
        u1[c] = _THIRD * ((a + d) + b)
        u2[c] = _THIRD * (b - (a + d))
        u3[c] = -_FOUR * _FIFTEENTH * ((_FOUR * a + d) + _TWO * b)
        u4[c] = _FIFTEENTH * ((a + _FOUR * d) - _TWO * b)
        u5[c] = d


@njit(nogil=True, fastmath={"contract"})
def _gather(u0, u1, u2, u3, u4, u5, w0, w1, w2, n):
    """G^T u of six lines: three."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for c in range(n):
        odd, even = _THIRD * (u1[c] - u2[c]), _THIRD * (u1[c] + u2[c])
        half, minus = _FIFTEENTH * u3[c], _FIFTEENTH * u4[c]
        w0[c] = (u0[c] + odd) + (minus - _FOUR * _FOUR * half)
        w1[c] = even - (_EIGHT * half + _TWO * minus)
        w2[c] = (odd + u5[c]) + _FOUR * (minus - half)


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
    half = np.empty(18 * length, np.float32)
    for i in range(first_chunk * chunk, min(last_chunk * chunk, count)):
        for k in range(9):
            line = _line(lines, k, length)
            first = i * step + (8 - k if turned else k)
            for j in range(length):
                line[j] = weight[first + j * stride]
        for x in range(3):
            _spread(
                _line(lines, x, length), _line(lines, 3 + x, length), _line(lines, 6 + x, length),
                _line(half, x, length), _line(half, 3 + x, length), _line(half, 6 + x, length),
                _line(half, 9 + x, length), _line(half, 12 + x, length),
                _line(half, 15 + x, length), length,
            )  # fmt: skip
        for y in range(6):
            at = 6 * y * count + i
            _spread(
                _line(half, 3 * y, length), _line(half, 3 * y + 1, length),
                _line(half, 3 * y + 2, length),
                _part(points, at, wide, length), _part(points, at + count, wide, length),
                _part(points, at + 2 * count, wide, length),
                _part(points, at + 3 * count, wide, length),
                _part(points, at + 4 * count, wide, length),
                _part(points, at + 5 * count, wide, length),
                length,
            )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def gather_weight(
    first_chunk, last_chunk, points, weight, parts, count, length, lines_wide, wide, chunk
):
    """``G^T u G``, ``[length, count, 3, 3]``, of the sum of ``[parts, 36, lines_wide, wide]``."""
    sums = np.empty(36 * length, np.float32)
    half = np.empty(18 * length, np.float32)
    lines = np.empty(9 * length, np.float32)
    for i in range(first_chunk * chunk, min(last_chunk * chunk, count)):
        for k in range(36):
            line = _line(sums, k, length)
            copy(line, _part(points, k * lines_wide + i, wide, length))
            for part in range(1, parts):
                line += _part(points, (part * 36 + k) * lines_wide + i, wide, length)
        for x in range(6):
            _gather(
                _line(sums, x, length), _line(sums, 6 + x, length), _line(sums, 12 + x, length),
                _line(sums, 18 + x, length), _line(sums, 24 + x, length),
                _line(sums, 30 + x, length),
                _line(half, x, length), _line(half, 6 + x, length), _line(half, 12 + x, length),
                length,
            )  # fmt: skip
        for y in range(3):
            _gather(
                _line(half, 6 * y, length), _line(half, 6 * y + 1, length),
                _line(half, 6 * y + 2, length), _line(half, 6 * y + 3, length),
                _line(half, 6 * y + 4, length), _line(half, 6 * y + 5, length),
                _line(lines, 3 * y, length), _line(lines, 3 * y + 1, length),
                _line(lines, 3 * y + 2, length), length,
            )  # fmt: skip
        for k in range(9):
            line = _line(lines, k, length)
            for j in range(length):
                weight[(j * count + i) * 9 + k] = line[j]
