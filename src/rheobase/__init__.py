"""rheobase: large-scale deep spiking neural networks.

A network is a function of a whole spike sequence: ``y = net(x)``, time first, ``[T, N, ...]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rheobase import layers, neurons, surrogate
    from rheobase.layers.optimize import optimize
    from rheobase.stateful import streaming

__version__ = "0.1.0"

__all__ = ["__version__", "layers", "neurons", "optimize", "streaming", "surrogate"]

# What is no module of the package: where it stands.
_FUNCTIONS = {"optimize": "rheobase.layers.optimize", "streaming": "rheobase.stateful"}


_ABOVE = ("convert",)
"""Parts on floors above that users reach through the face; loaded by name, never imported here."""


def __getattr__(name: str) -> Any:
    """Load a part of the package when it is first asked for: the command starts without PyTorch."""
    if name not in (*__all__, *_ABOVE):
        raise AttributeError(f"module 'rheobase' has no attribute {name!r}")
    if name in _FUNCTIONS:
        value: Any = getattr(import_module(_FUNCTIONS[name]), name)
    else:
        value = import_module(f"rheobase.{name}")
    globals()[name] = value
    return value
