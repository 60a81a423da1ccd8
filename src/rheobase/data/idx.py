"""IDX, the file form of MNIST: a magic number, the big-endian sizes, the bytes."""

from __future__ import annotations

import math

import numpy as np

from rheobase.data.images import Bytes

__all__ = ["read_idx", "write_idx"]

_UINT8 = 0x08


def read_idx(data: bytes, name: str) -> Bytes:
    """Return the uint8 array of an IDX file; ``name`` is for the error message.

    >>> read_idx(write_idx(np.arange(6, dtype=np.uint8).reshape(2, 3)), "x").tolist()
    [[0, 1, 2], [3, 4, 5]]

    Raises:
        ValueError: the header is not that of a uint8 IDX file, or the length does not fit it.
    """
    rank = data[3] if len(data) >= 4 else 0
    if data[:3] != bytes([0, 0, _UINT8]) or rank == 0 or len(data) < 4 + 4 * rank:
        raise ValueError(
            f"{name}: the IDX header should start with 00 00 08 (unsigned bytes) and the number "
            f"of dimensions, found {data[:4].hex(' ') or 'nothing'}"
        )
    shape = np.frombuffer(data, ">u4", rank, 4).tolist()
    start = 4 + 4 * rank
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{name}: the IDX header promises {shape} = {math.prod(shape)} bytes, "
            f"found {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(array: Bytes) -> bytes:
    """Return a uint8 array as the bytes of an IDX file."""
    header = bytes([0, 0, _UINT8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
