"""Chunks of a kernel on several threads: compiled code holds no lock, plain threads suffice.

No OpenMP here: a second OpenMP runtime beside PyTorch's spins on the same cores, and is unsafe
after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

__all__ = ["SERIAL_BYTES", "run_chunks"]

# Below this much memory traffic, waking a thread costs more than it saves.
SERIAL_BYTES = 1 << 20


def run_chunks(kernel: Callable[[int, int], None], chunks: int, traffic: int) -> None:
    """Call ``kernel(first, last)`` so that chunks ``0 .. chunks - 1`` are each done once.

    Uses as many threads as PyTorch does (`torch.set_num_threads`), or one for little ``traffic``
    (bytes).
    """
    threads = min(torch.get_num_threads(), chunks)
    if threads <= 1 or traffic < SERIAL_BYTES:
        kernel(0, chunks)
        return
    edges = [chunks * i // threads for i in range(threads + 1)]
    pool = _pool(os.getpid(), threads - 1)
    others = [pool.submit(kernel, edges[i], edges[i + 1]) for i in range(1, threads)]
    kernel(edges[0], edges[1])
    for other in others:
        other.result()


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by process: after a fork the parent's threads are not there.
    return ThreadPoolExecutor(threads, thread_name_prefix="rheobase")
