"""Spikes to bits and back on the CPU, one pass over memory each way."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from numba import njit

__all__ = ["pack", "unpack"]


@njit(nogil=True, error_model="numpy")
def pack(first_chunk, last_chunk, values, packed, chunk):
    """Chunks of ``chunk`` bytes: eight values each, the first in the highest bit."""
    start, stop = first_chunk * chunk, min(last_chunk * chunk, packed.size)
    whole = min(stop, values.size // 8)
    for i in range(start, whole):
        byte = 0
        for k in range(8):
            byte = (byte << 1) | (1 if values[8 * i + k] != 0 else 0)
        packed[i] = byte
    for i in range(max(start, whole), stop):
        packed[i] = 0
        for k in range(values.size - 8 * i):
            packed[i] |= (1 if values[8 * i + k] != 0 else 0) << (7 - k)


@njit(nogil=True, error_model="numpy")
def unpack(first_chunk, last_chunk, packed, values, ones, chunk):
    """The values of chunks of ``chunk`` bytes: ``ones[0]`` for every bit that is set, else 0."""
    start, stop = first_chunk * chunk, min(last_chunk * chunk, packed.size)
    one = ones[0]
    zero = one - one
    whole = min(stop, values.size // 8)
    for i in range(start, whole):
        byte = packed[i]
        for k in range(8):
            values[8 * i + k] = one if (byte >> (7 - k)) & 1 else zero
    for i in range(max(start, whole), stop):
        for k in range(values.size - 8 * i):
            values[8 * i + k] = one if (packed[i] >> (7 - k)) & 1 else zero
