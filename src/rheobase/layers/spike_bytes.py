"""Neurons whose spikes can travel as bytes: those that only layers for bytes read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from rheobase.layers.int8 import Int8Conv2d, Int8Linear, SpikeAvgPool2d, SpikeMaxPool2d
from rheobase.layers.lookup import LookupConv2d, LookupLinear
from rheobase.layers.sized_spikes import AddSpikes, SizedSpikes
from rheobase.neurons import Neuron, RateIF
from rheobase.ops.eager import watched

__all__ = ["send_bytes"]

# What only looks at memory in another shape or order.
_MOVES = {
    "__getitem__", "contiguous", "detach", "expand", "flatten", "pad", "permute", "reshape",
    "select", "squeeze", "transpose", "unbind", "unflatten", "unsqueeze", "view",
}  # fmt: skip

# What reads values without giving a tensor.
_LOOKS = {"__array__", "allclose", "equal", "numpy", "tolist"}


def send_bytes(net: nn.Module, example: Tensor) -> int:
    """Let every neuron give uint8 whose spikes only layers for bytes read.

    Those are `Int8Conv2d`, `Int8Linear`, `LookupConv2d`, `LookupLinear`, `AddSpikes` and
    `SizedSpikes`.

    Pooling, `nn.Flatten` and what changes shapes may stand between. Average pooling gives sums
    then, so the layers behind it take multiples of one over its window; those that look up cannot.

    Args:
        net: in evaluation mode; changed in place.
        example: an input of it, on which it is seen who reads what.

    Returns:
        how many neurons do.
    """
    neurons = {n: m for n, m in net.named_modules() if isinstance(m, Neuron) and _gives_bytes(m)}
    seen = _Readers(net, neurons)
    with torch.no_grad(), seen.watching():
        output = net(example)
    for leaf in pytree.tree_leaves(output):
        seen.read(leaf, None)
    chosen = [name for name, neuron in neurons.items() if seen.only_bytes(name)]
    for name in chosen:
        neurons[name].to_bytes = True
        for layer, pooled in seen.readers[name]:
            if isinstance(layer, _TAKING_SUMS):
                layer.step = 1.0 / pooled
    return len(chosen)


def _gives_bytes(neuron: Neuron) -> bool:
    scans = neuron.is_plain_scan or type(neuron).run is RateIF.run
    return scans and neuron.largest is not None and not watched(neuron)  # hooks are for floats


@dataclass
class _Readers:
    """Who reads each neuron's spikes, by the memory that they lie in.

    A reader is a layer with the number of spikes that an average before it was taken of; None: an
    operation or layer that does not take bytes.
    """

    net: nn.Module
    neurons: dict[str, Neuron]
    readers: dict[str, set[tuple[nn.Module | None, int]]] = field(default_factory=dict)
    _origin: dict[int, tuple[str, int]] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)  # so that no memory is used twice
    _inside: int = 0

    def only_bytes(self, name: str) -> bool:
        """Whether layers for bytes read this neuron, and nothing else does.

        The sums that they take must fit a byte.
        """
        largest = self.neurons[name].largest or 0
        found = self.readers.get(name, set())
        layers = [layer for layer, _ in found]
        return (
            bool(found)
            and all(isinstance(r, _TAKING_SUMS if n > 1 else _READING) for r, n in found)
            and len(set(layers)) == len(layers)
            and all(largest * pooled <= 255 for _, pooled in found)
        )

    def read(self, x: Any, by: nn.Module | None) -> None:
        """Note a reader of this tensor, if it holds spikes."""
        if isinstance(x, Tensor) and _place(x) in self._origin:
            name, pooled = self._origin[_place(x)]
            self.readers.setdefault(name, set()).add((by, pooled))

    def passes(self, x: Any, y: Any, pooled: int = 1) -> None:
        """Note that one tensor holds what the other does, or averages of so many of it."""
        if isinstance(x, Tensor) and isinstance(y, Tensor) and _place(x) in self._origin:
            name, before = self._origin[_place(x)]
            self.note(y, name, before * pooled)

    def note(self, y: Tensor, name: str, pooled: int = 1) -> None:
        self._origin[_place(y)] = name, pooled
        self._alive.append(y)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, every call of the network's modules and of PyTorch is seen."""
        handles = []
        for name, module in self.net.named_modules():
            if name in self.neurons:
                handles.append(module.register_forward_hook(self._after_neuron(name)))
            elif isinstance(module, _KNOWN):
                handles.append(module.register_forward_pre_hook(self._enter))
                handles.append(module.register_forward_hook(self._after_layer))
        try:
            with _Functions(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_neuron(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.note(output, name)

        return hook

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._inside += 1

    def _after_layer(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._inside -= 1
        if isinstance(module, SpikeAvgPool2d):
            self.passes(arguments[0], output, module.window)
        elif isinstance(module, _PASSING):
            self.passes(arguments[0], output)
        else:
            self.read(arguments[-1], module)


_PASSING = (nn.Flatten, nn.Identity, nn.Dropout, SpikeMaxPool2d)
_TAKING_SUMS = (Int8Conv2d, Int8Linear, AddSpikes, SizedSpikes)
_READING = (*_TAKING_SUMS, LookupConv2d, LookupLinear)
_KNOWN = (*_PASSING, SpikeAvgPool2d, *_READING)


class _Functions(TorchFunctionMode):
    """Tells `_Readers` of every function of PyTorch that is called outside of known layers."""

    def __init__(self, seen: _Readers) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        name = getattr(func, "__name__", "")
        if self.seen._inside or not (outputs or name in _LOOKS):
            return result
        moved = name in _MOVES
        for x in pytree.tree_leaves((args, kwargs)):
            if not moved:
                self.seen.read(x, None)
                continue
            for y in outputs:
                self.seen.passes(x, y)
        return result


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
