"""Batch norm's two passes over memory on the CPU, for any dense memory order.

Column m of a step belongs to channel ``(m // inner) % count``: inner is 1 for channels last, H x W
for channels first. ``load`` and ``store`` turn what lies in memory into numbers and back.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import prefer_wide_vectors

__all__ = ["make_add_affine", "make_statistics", "same"]


@njit(inline="always")
def same(value):
    """For dtypes that numba computes with, memory holds the numbers themselves."""
    return value


def make_statistics(load):
    """The kernel of per channel sums, one row of ``sums`` (2 x count) for each chunk.

    Sums of ``x - origin`` and of its square: ``origin``, some value of the channel, keeps the
    squares small, so that nothing cancels in the variance.
    """

    # Sums may be reordered: in float64 that is no loss.
    @njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
    def statistics(
        first_chunk, last_chunk, x, x_step, origin, sums, steps, size, chunk, count, inner
    ):
        prefer_wide_vectors()
        for which in range(first_chunk, last_chunk):
            start, stop = which * chunk, min((which + 1) * chunk, size)
            total = sums[which * 2 * count : which * 2 * count + count]
            square = sums[which * 2 * count + count : (which + 1) * 2 * count]
            for t in range(steps):
                j = start
                while j < stop:
                    c = (j // inner) % count
                    run = min(count - c if inner == 1 else inner - j % inner, stop - j)
                    row = x[t * x_step + j : t * x_step + j + run]
                    if inner == 1:
                        into, squares = total[c : c + run], square[c : c + run]
                        origins = origin[c : c + run]
                        for k in range(run):
                            d = np.float64(load(row[k])) - origins[k]
                            into[k] += d
                            squares[k] += d * d
                    else:
                        s, q, o = 0.0, 0.0, origin[c]
                        for k in range(run):
                            d = np.float64(load(row[k])) - o
                            s += d
                            q += d * d
                        total[c] += s
                        square[c] += q
                    j += run

    return statistics


def make_add_affine(load, store):
    """The kernel of ``g += slope * x + offset``, in place, slope and offset by channel."""

    @njit(nogil=True, error_model="numpy")
    def add_affine(
        first_chunk, last_chunk, g, x, x_step, slope, offset, steps, size, chunk, count, inner
    ):
        prefer_wide_vectors()
        start, stop = first_chunk * chunk, min(last_chunk * chunk, size)
        for t in range(steps):
            j = start
            while j < stop:
                c = (j // inner) % count
                run = min(count - c if inner == 1 else inner - j % inner, stop - j)
                row_x = x[t * x_step + j : t * x_step + j + run]
                row_g = g[t * size + j : t * size + j + run]
                if inner == 1:
                    slopes, offsets = slope[c : c + run], offset[c : c + run]
                    for k in range(run):
                        row_g[k] = store(load(row_g[k]) + (slopes[k] * load(row_x[k]) + offsets[k]))
                else:
                    a, b = slope[c], offset[c]
                    for k in range(run):
                        row_g[k] = store(load(row_g[k]) + (a * load(row_x[k]) + b))
                j += run

    return add_affine
