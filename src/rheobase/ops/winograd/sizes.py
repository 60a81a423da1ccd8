"""Where the points of tiles lie: who makes room for them and the kernels agree on it."""

from __future__ import annotations

from rheobase.ops.products.sizes import COLUMNS

__all__ = ["apart"]


def apart(room: int, wide: int) -> int:
    """How many numbers lie between two of a tile's points, with room for so many tiles of channels.

    A line of the cache more than they take: 36 lines at a distance of a power of two would drive
    each other out of it.
    """
    return room * wide + COLUMNS
