"""Spikes to bits and back on the CPU, one pass over memory each way.

Eight rows of 64 values become 64 bytes, a bit of each for every row: neighbours in memory stay
neighbours, so both ways are vector code. What is left at the end goes eight neighbours to a byte.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import prefer_wide_vectors
from rheobase.ops.packed import BLOCK

__all__ = ["pack", "unpack"]


@njit(nogil=True, error_model="numpy")
def pack(first_chunk, last_chunk, values, packed, chunk):
    """Chunks of ``chunk`` bytes (whole blocks), of values that are 0 or not."""
    prefer_wide_vectors()
    start, stop = first_chunk * chunk, min(last_chunk * chunk, packed.size)
    whole = min(stop, values.size // (8 * BLOCK) * BLOCK)
    for block in range(start, whole, BLOCK):
        rows = values[8 * block : 8 * (block + BLOCK)]
        out = packed[block : block + BLOCK]
        for j in range(BLOCK):
            byte = np.uint8(0)
            for k in range(8):
                byte |= np.uint8(rows[k * BLOCK + j] != 0) << np.uint8(k)
            out[j] = byte
    for i in range(max(start, whole), stop):
        packed[i] = 0
        for k in range(min(8, values.size - 8 * i)):
            packed[i] |= (1 if values[8 * i + k] != 0 else 0) << k


@njit(nogil=True, error_model="numpy")
def unpack(first_chunk, last_chunk, packed, values, ones, chunk):
    """The values of chunks of ``chunk`` bytes: ``ones[0]`` for every bit that is set, else 0."""
    prefer_wide_vectors()
    start, stop = first_chunk * chunk, min(last_chunk * chunk, packed.size)
    one = ones[0]
    zero = one - one
    whole = min(stop, values.size // (8 * BLOCK) * BLOCK)
    for block in range(start, whole, BLOCK):
        rows = values[8 * block : 8 * (block + BLOCK)]
        bytes = packed[block : block + BLOCK]
        for k in range(8):
            bit = np.uint8(1 << k)
            for j in range(BLOCK):
                rows[k * BLOCK + j] = one if bytes[j] & bit else zero
    for i in range(max(start, whole), stop):
        for k in range(min(8, values.size - 8 * i)):
            values[8 * i + k] = one if (packed[i] >> k) & 1 else zero
