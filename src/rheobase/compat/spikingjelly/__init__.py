"""Code written for SpikingJelly 0.0.0.0.12 or 0.0.0.0.14, run unchanged on rheobase.

`install` puts modules of those names where ``import`` finds them: ``spikingjelly.clock_driven``
(0.0.0.0.12), ``spikingjelly.activation_based`` (0.0.0.0.14), each with ``neuron``, ``layer``,
``functional``, ``surrogate``, ``encoding`` and ``base``, and ``spikingjelly.cext.neuron``; what
published code names beside them (``configure``, ``lava_exchange``) can be imported. Neurons keep
their membrane from call to call until ``reset_net``, as SpikingJelly's do; their arguments,
defaults and state dicts are those of the version. What computes is rheobase.

>>> import torch
>>> import rheobase.compat.spikingjelly as sj
>>> with sj.installed():
...     from spikingjelly.clock_driven import functional
...     from spikingjelly.clock_driven.neuron import MultiStepLIFNode
>>> neuron = MultiStepLIFNode(tau=2.0, detach_reset=True)
>>> x = torch.full((4, 1), 1.5)
>>> neuron(x).flatten().tolist(), neuron.v.item()
([0.0, 1.0, 0.0, 1.0], 0.0)
>>> functional.reset_net(neuron)
>>> neuron.v
0.0
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

__all__ = ["install", "installed", "uninstall"]

# Name within spikingjelly -> module of this package.
_MODULES = {
    "clock_driven.base": "base",
    "clock_driven.encoding": "encoding",
    "clock_driven.functional": "functional",
    "clock_driven.lava_exchange": "lava_exchange",
    "clock_driven.layer": "clock_driven_layer",
    "clock_driven.neuron": "clock_driven_neuron",
    "clock_driven.surrogate": "surrogate",
    "activation_based.base": "base",
    "activation_based.encoding": "encoding",
    "activation_based.functional": "functional",
    "activation_based.layer": "layer",
    "activation_based.neuron": "neuron",
    "activation_based.surrogate": "surrogate",
    "cext.neuron": "cext_neuron",
    "configure": "configure",
}


def install() -> None:
    """Let ``import spikingjelly...`` find the modules of this package, until `uninstall`.

    Raises:
        RuntimeError: SpikingJelly itself is imported already.
    """
    real = sys.modules.get("spikingjelly")
    if real is not None and not _is_ours(real):
        raise RuntimeError(
            f"spikingjelly is imported already, from {getattr(real, '__file__', None)}; call "
            "rheobase.compat.spikingjelly.install() before anything imports it"
        )
    for name, ours in _MODULES.items():
        parent, _, leaf = f"spikingjelly.{name}".rpartition(".")
        module = import_module(f"{__name__}.{ours}")
        setattr(_package(parent), leaf, module)
        sys.modules[f"spikingjelly.{name}"] = module


def uninstall() -> None:
    """Take the modules away again; what was imported from them works on."""
    root = sys.modules.get("spikingjelly")
    if root is not None and _is_ours(root):
        for name in [n for n in sys.modules if n.partition(".")[0] == "spikingjelly"]:
            del sys.modules[name]


@contextmanager
def installed() -> Iterator[None]:
    """`install` for the imports within the block; nothing, if it is installed already."""
    before = "spikingjelly" in sys.modules
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def _package(name: str) -> ModuleType:
    if name not in sys.modules:
        package = ModuleType(name, f"Stands in for {name}; made by {__name__}.")
        package.__path__ = []
        sys.modules[name] = package
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(_package(parent), leaf, package)
    return sys.modules[name]


def _is_ours(module: ModuleType) -> bool:
    return (module.__doc__ or "").endswith(f"made by {__name__}.")
