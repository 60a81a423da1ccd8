"""Where a transformer needs spikes: at what enters a layer with weights or a product of two values.

A pass over the graph puts an `Encode` there, which conversion takes for an activation: it is
calibrated, and replaced by the recipe's neuron.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from rheobase.convert.kinds import KINDS, kind_of
from rheobase.convert.recipe import Recipe
from rheobase.convert.trace import Traced, add_module
from rheobase.layers import Quantise
from rheobase.neurons import affine_integers

__all__ = [
    "SIZES",
    "Encode",
    "HiddenUnits",
    "encode_for_spikellm",
    "encode_for_sta",
    "encode_hidden_operands",
    "encode_linear_inputs",
    "encode_operands",
    "input_dependent",
    "note_weights",
]


class Encode(nn.Module):
    """The identity, to become a spiking neuron.

    Attributes:
        source: the kind of operation that its value comes from ("layer_norm", "softmax", ...).
        signed: whether calibration saw negative values.
        weight: of the linear layer behind it, where the statistic needs it.
    """

    conversion_kind = "encode"

    def __init__(self, source: str = "") -> None:
        super().__init__()
        self.source = source
        self.signed = False
        self.weight: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return x

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"of {self.source}" if self.source else ""


class HiddenUnits(nn.ReLU):
    """The ReLUs of an approximator, ``[..., units]``: each has a threshold of its own."""

    conversion_kind = "relu"


def note_weights(traced: Traced, _: Recipe | None = None) -> None:
    """Note in every ReLU the largest weight or bias of the layer before it, for its threshold."""
    for node in traced.graph.nodes:
        relu = traced.owner(node)
        if not isinstance(relu, nn.ReLU):
            continue
        origin = _origin(traced, node.args[0])
        while kind_of(traced, origin) in ("max_pool", "average"):
            origin = _origin(traced, origin.all_input_nodes[0])
        layer = traced.owner(origin)
        if layer is not None and any(True for _ in layer.parameters()):
            relu.largest_weight = max(float(p.detach().max()) for p in layer.parameters())  # type: ignore[assignment]


SIZES = (getattr, "size", "dim", "numel", *(call for call, kind in KINDS.items() if kind == "like"))
"""What takes a tensor and gives something of its shape."""


def encode_operands(traced: Traced, _: Recipe | None = None) -> None:
    """Encode what enters weights, and both operands of a product; nothing in a quantised network.

    The first layer with weights, which takes the network's input itself, keeps it as it is.
    """
    _encode(traced, ("weighted", "matmul", "multiply"))


def encode_hidden_operands(traced: Traced, _: Recipe | None = None) -> None:
    """As `encode_operands`, but the last layer takes its input as it is, as in ECMT's code."""
    _encode(traced, ("weighted", "matmul", "multiply"), head=False)


def encode_linear_inputs(traced: Traced, _: Recipe | None = None) -> None:
    """Encode what enters weights alone; products of attention stay analog."""
    _encode(traced, ("weighted",))


def encode_for_sta(traced: Traced, _: Recipe | None = None) -> None:
    """Encode norms and contexts that enter weights, and attention itself.

    Queries, keys and values stay currents; behind an activation the hidden spikes of its
    approximator go on into the next weights.
    """
    _encode(traced, ("weighted", "matmul"), sources=("layer_norm", "matmul", "softmax"))


def encode_for_spikellm(traced: Traced, _: Recipe | None = None) -> None:
    """Encode what enters each linear layer, by itself; their weights become integers of 4 bits.

    Each encoder notes the weight, which saliency hangs on. The ends of a row's range are drawn in
    by the factor with which OmniQuant begins to learn them. A layer that takes the network's
    input, and the last, which no layer follows, stay as they are.
    """
    dependent, raw = input_dependent(traced), _raw(traced)
    last = _origin(traced, next(node for node in traced.graph.nodes if node.op == "output"))
    layers: dict[str, tuple[nn.Linear, Tensor]] = {}
    for node in list(traced.graph.nodes):
        layer, operand = traced.owner(node), node.args[0] if node.args else None
        if not isinstance(layer, nn.Linear) or node is last:
            continue
        if operand in raw or operand not in dependent:
            continue
        assert isinstance(operand, fx.Node)
        name = str(node.target)
        if name not in layers:
            layers[name] = _in_few_bits(layer), layer.weight.detach()
            traced.module.set_submodule(name, layers[name][0])
        encoder = _encoder(traced, operand, _origin(traced, operand), {})
        module = traced.owner(encoder)
        assert isinstance(module, Encode)
        module.weight = layers[name][1]
        node.replace_input_with(operand, encoder)
    traced.graph.lint()
    traced.module.recompile()


def _in_few_bits(layer: nn.Linear) -> nn.Linear:
    """A copy whose rows are 16 values each."""
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        n, unit, zero = affine_integers(layer.weight, 15, shrink=1.0 / (1.0 + math.exp(-4.0)))
        layer.weight.copy_((n - zero) * unit)
    return layer


def input_dependent(traced: Traced) -> set[fx.Node]:
    """Nodes whose value depends on that of the input, not on its sizes alone."""
    found: set[fx.Node] = set()
    for node in traced.graph.nodes:
        takes = not found.isdisjoint(node.all_input_nodes)
        if node.op == "placeholder" or (takes and node.target not in SIZES):
            found.add(node)
    return found


def _encode(
    traced: Traced,
    kinds: tuple[str, ...],
    head: bool = True,
    sources: tuple[str, ...] | None = None,
) -> None:
    """Encode operands of nodes of these kinds, if they come from one of ``sources``."""
    if _drop_relus_of_quantisers(traced):
        return
    dependent = input_dependent(traced)
    raw = _raw(traced)
    output = next(node for node in traced.graph.nodes if node.op == "output")
    last = None if head else _origin(traced, output)
    encoders: dict[fx.Node, fx.Node] = {}
    for node in list(traced.graph.nodes):
        kind = kind_of(traced, node)
        if kind not in kinds or node is last:
            continue
        operands = [n for n in node.args if isinstance(n, fx.Node) and n in dependent]
        if kind == "multiply" and len(operands) < 2:
            continue
        if kind == "weighted":
            operands = operands[:1]
        for operand in operands:
            origin = _origin(traced, operand)
            wanted = sources is None or kind_of(traced, origin) in sources
            if operand not in raw and wanted and kind_of(traced, origin) != "encode":
                node.replace_input_with(operand, _encoder(traced, operand, origin, encoders))
    traced.graph.lint()
    traced.module.recompile()


def _drop_relus_of_quantisers(traced: Traced) -> bool:
    """Whether the network has quantisers, which then say where its spikes are.

    A ReLU behind an unsigned quantiser does nothing, and is taken out.
    """
    found = False
    for node in list(traced.graph.nodes):
        module = traced.owner(node)
        if isinstance(module, Quantise):
            found = True
            for user in list(node.users):
                if not module.symmetric and kind_of(traced, user) == "relu":
                    user.replace_all_uses_with(node)
                    traced.graph.erase_node(user)
    traced.module.recompile()
    return found


def _encoder(
    traced: Traced, operand: fx.Node, origin: fx.Node, encoders: dict[fx.Node, fx.Node]
) -> fx.Node:
    """The encoder of a value: one for all that take it."""
    if operand not in encoders:
        module = Encode(kind_of(traced, origin) or "")
        name = add_module(traced, f"{operand.name}_encode", module)
        with traced.graph.inserting_after(operand):
            encoders[operand] = traced.graph.call_module(name, (operand,))
        encoders[operand].stack_trace = operand.stack_trace
    return encoders[operand]


def _origin(traced: Traced, node: fx.Node) -> fx.Node:
    """What a value comes from, before its shape was changed."""
    while node.op == "output" or kind_of(traced, node) in ("shape", "identity", "dropout"):
        before: Any = node.args[0] if node.args else None
        if not isinstance(before, fx.Node):
            break
        node = before
    return node


def _raw(traced: Traced) -> set[fx.Node]:
    """The input, what is that in another shape, and masks and indices made of these."""
    raw: set[fx.Node] = set()
    for node in traced.graph.nodes:
        before = node.all_input_nodes
        index = node.meta.get("picks") and before and raw.issuperset(before)
        if node.op != "output" and (index or _origin(traced, node).op == "placeholder"):
            raw.add(node)
    return raw
