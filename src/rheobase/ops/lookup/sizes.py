"""Sizes that the tables' layout and the kernels that read them agree on."""

from __future__ import annotations

__all__ = ["CODES", "GROUP", "PIXELS", "VECTOR"]

GROUP = 4
"""Inputs whose sums are looked up together."""

CODES = 1 << GROUP
"""Rows of a table: one for every set of so many inputs."""

VECTOR = 64
"""Bytes that are added at once."""

PIXELS = 8
"""Pixels that are added up side by side, at most: there is room for whole ones of so many."""
