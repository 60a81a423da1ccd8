"""Kernels over events, compiled for a dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rheobase.ops.native import Kernel

__all__ = ["event_kernel"]

# Arrays of whole numbers, which travel as floats of their size.
_WHOLE = {
    "which": ("float32*", "int32"),
    "starts": ("float64*", "int64"),
    "counts": ("float64*", "int64"),
}


def event_kernel(
    name: str, dtype: torch.dtype, arrays: Sequence[str], sizes: Sequence[str]
) -> Kernel:
    """The function of that name in `rheobase.ops.events.rows`, for arrays of that dtype.

    Args:
        name: of the function.
        dtype: of all arrays but ``which`` (int32), ``starts`` and ``counts`` (int64).
        arrays: its array arguments, after the first two (the chunks).
        sizes: its int64 arguments, which follow.
    """
    real = str(dtype).removeprefix("torch.") + "*"
    kinds = {array: _WHOLE.get(array, (real,))[0] for array in arrays}
    passed = [f"{a}.view(np.{_WHOLE[a][1]})" if a in _WHOLE else a for a in arrays]
    given = ", ".join([*arrays, *sizes])
    source = f"""import numpy as np
from numba import njit
from rheobase.ops.events.rows import {name}


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {given}):
    {name}(first_chunk, last_chunk, {", ".join([*passed, *sizes])})
"""
    return Kernel(f"event_{name}", source, kinds | dict.fromkeys(sizes, "int64"))
