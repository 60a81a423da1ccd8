"""The GPU's kernels, imported when first needed: Triton loads slowly and may be absent."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["HAS_TRITON", "gpu_kernels"]

# A constant: what `torch.compile` traces may not look for modules.
HAS_TRITON = find_spec("triton") is not None
"""Whether Triton is installed."""


@cache
def gpu_kernels(name: str) -> Any:
    """The module ``rheobase.ops.<name>_triton``."""
    return import_module(f"rheobase.ops.{name}_triton")
