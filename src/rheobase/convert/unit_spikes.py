"""Spikes of size 1 in a converted network: their size goes into the weights that read them.

What was a product for every spike is done once, and spikes can travel as bytes.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn

from rheobase.convert.bias import pads_with
from rheobase.convert.kinds import kind_of
from rheobase.convert.spiking import Spiking
from rheobase.convert.trace import Traced, add_module
from rheobase.layers.sized_spikes import AddSpikes, SizedSpikes

__all__ = ["send_unit_spikes"]

_READERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_PASSING = {"average", "blend", "dropout", "identity", "max_pool", "shape"}
"""Kinds of which a multiple of the operand makes the same multiple of the result."""
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add")


def send_unit_spikes(stem: fx.GraphModule, body: fx.GraphModule) -> int:
    """Make every neuron send 1 for a spike, in place; the network's output stays the same.

    Sizes move through pooling and what only moves values, into the weights that read them. Where
    something else reads spikes, they are given their size there.

    Args:
        stem: of a converted network: what it shares with the body stays as it is.
        body: of that network, for inference.

    Returns:
        how many neuron layers do.
    """
    sizes = _Sizes(Traced(stem, ()), Traced(body, ()))
    for node in list(body.graph.nodes):
        sizes.visit(node)
    body.graph.lint()
    body.recompile()
    return sizes.senders


class _Sizes:
    """Goes through the graph, and knows of every value whether it wants a size."""

    def __init__(self, stem: Traced, traced: Traced) -> None:
        self.traced = traced
        self.senders = 0
        self.of: dict[fx.Node, Tensor] = {}
        owners = (part.owner(node) for part in (stem, traced) for node in part.graph.nodes)
        self.calls = Counter(id(module) for module in owners if module is not None)

    def visit(self, node: fx.Node) -> None:
        """Give its unit operands their size, unless it can do without."""
        module = self.traced.owner(node)
        if operands := [n for n in node.all_input_nodes if n in self.of]:
            self._read(node, module, operands)
        if isinstance(module, Spiking) and module.can_send_units and self.calls[id(module)] == 1:
            self.of[node] = module.size.detach()
            module.sized = False
            self.senders += 1

    def _read(self, node: fx.Node, module: nn.Module | None, operands: list[fx.Node]) -> None:
        source = operands[0]
        alone = len(operands) == 1 and node.args and node.args[0] is source
        if alone and self._takes_in(module, self.of[source]):
            _multiply(module, self.of[source])
        elif alone and self._passes(node, module, self.of[source]):
            self.of[node] = self.of[source]
        elif self._is_residual(node):
            self._add(node, source)
        elif not _gives(node, "sizes", "number"):
            for operand in operands:
                node.replace_input_with(operand, self._sized(operand, node))

    def _takes_in(self, module: nn.Module | None, size: Tensor) -> bool:
        if type(module) not in _READERS or self.calls[id(module)] > 1:
            return False
        return size.numel() == 1 or (isinstance(module, nn.Conv2d) and _by_channel(size, module))

    def _passes(self, node: fx.Node, module: nn.Module | None, size: Tensor) -> bool:
        if kind_of(self.traced, node) not in _PASSING or pads_with(node, module):
            return False
        # Channels must stay channels, which functions and methods are not asked about.
        by_channel = isinstance(module, nn.AvgPool2d | nn.MaxPool2d)
        return _gives(node, "tensor") and (size.numel() == 1 or by_channel)

    def _is_residual(self, node: fx.Node) -> bool:
        return (
            node.target in _ADDITIONS
            and not node.kwargs
            and len(set(node.args)) == 2
            and all(isinstance(term, fx.Node) and _gives(term, "tensor") for term in node.args)
        )

    def _add(self, node: fx.Node, spikes: fx.Node) -> None:
        """The residual connection as a module, which takes spikes of size 1."""
        other = next(n for n in node.args if n is not spikes)
        assert isinstance(other, fx.Node)
        owned = type(self.traced.owner(other)) in _READERS and len(other.users) == 1
        if other in self.of:
            other = self._sized(other, node)
        name = add_module(self.traced, f"{node.name}_spikes", AddSpikes(self.of[spikes], owned))
        with self.traced.graph.inserting_before(node):
            made = self.traced.graph.call_module(name, (other, spikes))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        self.traced.graph.erase_node(node)

    def _sized(self, operand: fx.Node, before: fx.Node) -> fx.Node:
        name = add_module(self.traced, f"{operand.name}_sized", SizedSpikes(self.of[operand]))
        with self.traced.graph.inserting_before(before):
            made = self.traced.graph.call_module(name, (operand,))
        made.meta = dict(operand.meta)
        return made


def _multiply(module: Any, size: Tensor) -> None:
    weight = module.weight.detach()
    if size.numel() > 1 and module.groups > 1:
        # An output's inputs are the channels of its group.
        by_group = size.flatten().view(module.groups, -1)
        size = by_group.repeat_interleave(weight.shape[0] // module.groups, 0)
    elif size.numel() > 1:
        size = size.view(1, -1)
    size = size.reshape(*size.shape, *[1] * (weight.dim() - size.dim()))
    module.weight = nn.Parameter(weight * size, requires_grad=False)


def _by_channel(size: Tensor, conv: nn.Conv2d) -> bool:
    return size.numel() == conv.in_channels == size.shape[0]


def _gives(node: fx.Node, *what: str) -> bool:
    """Whether the value is known to be a tensor, sizes, a number."""
    growth = node.meta.get("growth")
    return growth is not None and growth.what in what
