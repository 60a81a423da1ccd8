"""Kernels over events, compiled for a dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rheobase.ops.native import Kernel, imported_kernel

__all__ = ["event_kernel"]

_WHOLE = {"which": "int32*", "starts": "int64*", "counts": "int64*"}


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
    kinds = {array: _WHOLE.get(array, real) for array in arrays}
    return imported_kernel("events.rows", name, kinds | dict.fromkeys(sizes, "int64"))
