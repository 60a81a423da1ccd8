"""Changes of the graph before neurons come in: each leaves what the ANN computes as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rheobase.convert.activations import activation_of_call
from rheobase.convert.kinds import ACTIVATIONS, GROWING, WEIGHTED, kind_of
from rheobase.convert.trace import Traced, add_module, line_of

__all__ = [
    "PASSES",
    "add_output_neurons",
    "fold_batch_norms",
    "own_activations",
    "pool_before_activations",
    "prune",
]


def prune(traced: Traced) -> None:
    """Take out what does nothing in evaluation: dropout and identities.

    Raises:
        ValueError: dropout that drops in evaluation too.
    """
    for node in list(traced.graph.nodes):
        if node.op == "call_function" and kind_of(traced, node) == "dropout":
            _check_dropout(node)
        if kind_of(traced, node) in ("dropout", "identity") and node.op != "output":
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    _clean(traced)


def _check_dropout(node: fx.Node) -> None:
    training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
    share = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
    if training and share != 0.0:
        raise ValueError(
            f"node {node.name!r} ({line_of(node)}) drops in evaluation too; write "
            "F.dropout(x, p, self.training)"
        )


def own_activations(traced: Traced) -> None:
    """Make every activation a module of its own: functional calls, and modules called twice."""
    taken: set[str] = set()
    for node in list(traced.graph.nodes):
        if kind_of(traced, node) not in ACTIVATIONS:
            continue
        module = traced.owner(node)
        called = module is not None
        if module is None:
            module = activation_of_call(traced, node)
        if module is None:
            raise ValueError(
                f"node {node.name!r} ({line_of(node)}) takes the larger or smaller of two values, "
                "or has one bound alone that is not 0: no neuron does; write it as nn.ReLU, "
                "nn.ReLU6 or nn.Hardtanh(low, high) with numbers"
            )
        if isinstance(module, nn.Hardtanh) and module.min_val != 0.0:
            module.conversion_kind = "hardtanh"  # type: ignore[assignment]
        if not called:
            name = add_module(traced, node.name, module)
        elif str(node.target) in taken:
            name = add_module(traced, str(node.target), copy.deepcopy(module))
        else:
            taken.add(str(node.target))
            continue
        _call_instead(traced, node, name)
    _clean(traced)


def _call_instead(traced: Traced, node: fx.Node, name: str) -> fx.Node:
    """Replace a node by a call of module ``name`` on its first argument."""
    with traced.graph.inserting_after(node):
        called = traced.graph.call_module(name, (node.args[0],))
    called.meta = dict(node.meta)
    called.stack_trace = node.stack_trace
    node.replace_all_uses_with(called)
    traced.graph.erase_node(node)
    return called


def fold_batch_norms(traced: Traced) -> None:
    """Put every batch norm into the convolution or linear layer whose result it alone takes.

    Others stay: in evaluation they are linear.
    """
    for node in list(traced.graph.nodes):
        norm = traced.owner(node)
        if not isinstance(norm, _BatchNorm):
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        layer = traced.owner(before)
        if not isinstance(layer, WEIGHTED) or norm.running_mean is None:
            continue
        _own_module(traced, before, folded_layer(layer, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    _clean(traced)


def _own_module(traced: Traced, node: fx.Node, module: nn.Module) -> None:
    """Let a node call another module, under its name unless others call the old one too."""
    calls = [n for n in traced.graph.nodes if n.op == "call_module" and n.target == node.target]
    if len(calls) == 1:
        traced.module.set_submodule(str(node.target), module)
    else:
        node.target = add_module(traced, str(node.target), module)


def folded_layer(layer: nn.Module, norm: _BatchNorm) -> nn.Module:
    """A copy of a weighted layer that does the batch norm behind it as well."""
    assert norm.running_mean is not None and norm.running_var is not None
    layer = copy.deepcopy(layer)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, Tensor))
    # In the order of operations of the released code of several methods: spikes are decided by the
    # last bits.
    deviation = torch.sqrt(norm.running_var + norm.eps)
    scale = torch.ones_like(deviation) if norm.weight is None else norm.weight
    offset = -scale * norm.running_mean / deviation
    if norm.bias is not None:
        offset = norm.bias + offset
    with torch.no_grad():
        weight.copy_(weight * _along_outputs(layer, scale / deviation))
        new = offset if bias is None else scale * bias / deviation + offset
        layer.bias = nn.Parameter(new.detach().clone())
    return layer


def _along_outputs(layer: nn.Module, gain: Tensor) -> Tensor:
    """A factor for each output channel, in the shape of the layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return gain.view(-1, *[1] * (weight.dim() - 1))
    # [in, out / groups, ...]: the output channels of a group belong to its input channels.
    groups = layer.groups
    factor = gain.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return factor.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2))


def pool_before_activations(traced: Traced) -> None:
    """Turn max pooling of activations into activations of max pooling: equal where both grow."""
    graph = traced.graph
    for node in list(graph.nodes):
        if kind_of(traced, node) != "max_pool":
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        if kind_of(traced, before) not in GROWING:
            continue
        with graph.inserting_after(node):
            moved = graph.node_copy(before, lambda n: n)
        node.replace_all_uses_with(moved)
        moved.args = (node, *before.args[1:])
        node.replace_input_with(before, before.args[0])
        graph.erase_node(before)
    _clean(traced)


def add_output_neurons(traced: Traced) -> None:
    """Put a ReLU behind the output, so that it becomes spikes: none of a negative output."""
    output = next(n for n in traced.graph.nodes if n.op == "output")
    name = add_module(traced, "output_neurons", nn.ReLU())
    with traced.graph.inserting_before(output):
        neurons = traced.graph.call_module(name, (output.args[0],))
    output.args = (neurons,)
    _clean(traced)


def _spiking_averages(traced: Traced, recipe: Any) -> None:
    """Put neurons behind every average pooling, so that what leaves it is spikes again.

    A ReLU changes nothing there, as long as what is pooled are activations that are not negative.
    """
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or kind_of(traced, node) != "average":
            continue
        name = add_module(traced, f"{node.target}_neurons", nn.ReLU())
        with traced.graph.inserting_after(node):
            neurons = traced.graph.call_module(name, (node,))
        neurons.stack_trace = node.stack_trace
        node.replace_all_uses_with(neurons, lambda user, made=neurons: user is not made)
    _clean(traced)


PASSES: dict[str, Callable[[Traced, Any], None]] = {"spiking_averages": _spiking_averages}
"""Further changes of the graph by name: ``(traced, recipe) -> None``, in place."""


def _clean(traced: Traced) -> None:
    traced.graph.lint()
    traced.module.recompile()
