"""Networks that call einops: its functions take what a network is traced with, as tensors."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from rheobase.convert.sizes import SizeProxy

__all__ = ["teach_einops"]


def teach_einops() -> None:
    """Give einops a backend for `SizeProxy`, if the program has imported einops.

    Each call becomes reshapes, permutations and reductions of PyTorch in the graph.
    """
    if "einops" in sys.modules:
        _backend()


@cache
def _backend() -> type:
    """The class: einops finds the backend of a type among the subclasses of its own."""
    from einops._backends import TorchBackend

    class TracedBackend(TorchBackend):
        framework_name = "rheobase"

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, SizeProxy)

        def shape(self, x: SizeProxy) -> list[Any]:
            """A list, which einops does not keep as the key of a cache."""
            return [x.shape[axis] for axis in range(x.ndim)]

    return TracedBackend
