"""The GPU's kernels, imported when first needed: Triton loads slowly and may be absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["gpu_kernels", "has_triton"]


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


@cache
def gpu_kernels(name: str) -> Any:
    """The module ``rheobase.ops.<name>_triton``."""
    return import_module(f"rheobase.ops.{name}_triton")
