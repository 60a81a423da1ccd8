"""Sizes that tiles of a product and who gives them matrices agree on."""

from __future__ import annotations

__all__ = ["COLUMNS", "ROWS", "padded"]

ROWS = 4
"""Rows of a tile: a product has whole ones of so many."""

COLUMNS = 16
"""A product has whole ones of so many columns."""


def padded(size: int) -> int:
    """The next multiple of `COLUMNS`, which is one of `ROWS` too."""
    return -(-size // COLUMNS) * COLUMNS
