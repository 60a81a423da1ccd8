"""Compiled code on the threads that PyTorch keeps.

PyTorch's OpenMP threads stay awake for a while after each operation. A pool of our own would
compete with them for the cores, and a second OpenMP runtime too; so kernels join the team that is
already there. Where PyTorch brings no GNU-compatible OpenMP, plain threads do the work.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import torch

__all__ = ["SERIAL_BYTES", "run_team", "team_size"]

# Below this much memory traffic, waking a thread costs more than it saves.
SERIAL_BYTES = 1 << 20

Entry = Callable[[int], None]  # a C function of one address, called through ctypes


def team_size(chunks: int, traffic: int) -> int:
    """How many threads are worth it: as many as PyTorch uses, or one for little traffic (bytes)."""
    return 1 if traffic < SERIAL_BYTES else min(torch.get_num_threads(), chunks)


def run_team(entry: Entry, address: int, threads: int) -> None:
    """Call the C function ``entry`` with ``address``, once on each of so many threads."""
    if threads == 1:
        entry(address)
        return
    parallel = _openmp()
    if parallel is not None:
        parallel(entry, address, threads, 0)
        return
    pool = _pool(os.getpid(), threads - 1)
    others = [pool.submit(entry, address) for _ in range(threads - 1)]
    entry(address)
    for other in others:
        other.result()


@cache
def _openmp() -> Callable[[Entry, int, int, int], None] | None:
    """``GOMP_parallel`` of the very runtime that PyTorch was linked with, or None."""
    for library in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.so"):
        # A name looked up in a library is searched in what it was linked with, too.
        parallel = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
        if parallel is not None:
            parallel.restype = None
            parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            return parallel  # type: ignore[no-any-return]
    return None


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by process: after a fork the parent's threads are not there.
    return ThreadPoolExecutor(threads, thread_name_prefix="rheobase")
