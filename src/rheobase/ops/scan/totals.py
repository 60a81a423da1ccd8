"""The sums of a kernel's chunks, added up: a loop, where PyTorch's calls take ten times as long."""

# numba compiles this; its types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

from numba import njit

__all__ = ["add_rows"]


@njit(nogil=True, error_model="numpy")
def add_rows(first_chunk, last_chunk, rows, totals):
    """In ``totals`` the sum of ``rows``, which are as long as it is."""
    count = totals.size
    for m in range(count):
        total = rows[m]
        for begin in range(count, rows.size, count):
            total += rows[begin + m]
        totals[m] = total
