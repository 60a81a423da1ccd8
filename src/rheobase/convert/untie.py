"""What hangs on sizes alone is the same at every step: it is tied to the network's input."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx

from rheobase.convert.batch import Growth
from rheobase.convert.trace import Traced

__all__ = ["untie_from_spikes"]

_SIZES = ("number", "sizes")


def untie_from_spikes(traced: Traced, samples: int, values: Mapping[fx.Node, Any]) -> None:
    """Take from the input what forward asks of tensors that change over time: batch and device.

    What forward makes of these, of sizes that no batch changes and of the network's own tensors (a
    class token for each sample, a position embedding for each token) is computed once then.

    Args:
        traced: a graph that `follow_batch` has seen.
        samples: how many there were.
        values: of its nodes for these.
    """
    graph = traced.graph
    x = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(x):
        device = _with_growth(graph.call_function(getattr, (x, "device")), Growth("other"))
        shape = graph.call_function(getattr, (x, "shape"))
        _with_growth(shape, Growth("sizes", x.meta["growth"].axes))
    with graph.inserting_after(shape):
        batch = graph.call_function(operator.getitem, (shape, 0))
        _with_growth(batch, Growth("number", (True,)))
    for node in list(graph.nodes):
        if node in (batch, device):
            continue
        if node.meta["growth"] == batch.meta["growth"] and values[node] == samples:
            node.replace_all_uses_with(batch)
        elif node.target is getattr and node.args[1] == "device":
            node.replace_all_uses_with(device)
    _fix_sizes(graph, {batch, device, *_sizes_of(x)}, values)
    _drop_sizes(graph)
    traced.module.recompile()


def _with_growth(node: fx.Node, growth: Growth) -> fx.Node:
    node.meta["growth"] = growth
    return node


def _sizes_of(x: fx.Node) -> list[fx.Node]:
    """What is asked of the input's sizes, and made of these: other inputs may be longer."""
    found = [x]
    for node in x.graph.nodes:
        before = node.all_input_nodes
        if before and all(n in found for n in before) and node.meta["growth"].what in _SIZES:
            found.append(node)
    return found[1:]


def _fix_sizes(graph: fx.Graph, early: set[fx.Node], values: Mapping[fx.Node, Any]) -> None:
    """Write sizes of spikes as numbers where nothing else that comes of spikes goes in."""
    for node in graph.nodes:
        before = node.all_input_nodes
        sizes = {one: values[one] for one in before if one not in early and _is_size(one)}
        made = node.op.startswith("call") and all(n in early or n in sizes for n in before)
        if node.op == "get_attr" or made:
            early.add(node)
            node.args = _written(node.args, sizes)
            node.kwargs = _written(node.kwargs, sizes)


def _written(arguments: Any, sizes: Mapping[fx.Node, Any]) -> Any:
    return fx.map_arg(arguments, lambda node: sizes.get(node, node))


def _is_size(node: fx.Node) -> bool:
    """Whether it is a number, or a tuple of numbers, that no batch changes."""
    growth = node.meta["growth"]
    return growth.what in _SIZES and not any(growth.axes)


def _drop_sizes(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if not node.users and node.op.startswith("call") and node.meta["growth"].what != "tensor":
            graph.erase_node(node)
