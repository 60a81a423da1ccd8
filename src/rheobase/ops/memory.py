"""Memory that is freed stays at hand for the next tensor."""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = ["keep_freed_memory"]

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# Above this, memory goes back to the system when it is freed.
_LARGEST_KEPT = 1 << 30


@cache
def keep_freed_memory() -> None:
    """Ask glibc's allocator to keep freed memory of up to 1 GiB a piece in the process.

    A training step frees and asks for the same large tensors over and over. By default each goes
    back to the system, which hands it out again page by page, cleared: 5 to 10 % of a step. GPU
    allocators keep memory for the same reason. Whoever has set malloc's own variables
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) keeps their choice.
    """
    chosen = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name in os.environ for name in chosen):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
