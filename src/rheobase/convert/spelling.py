"""One spelling for each operation, so that whoever walks the graph meets no other."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from rheobase.convert.kinds import kind_of, passes_spikes
from rheobase.convert.trace import Traced, free_name

__all__ = ["spell_out"]


def spell_out(traced: Traced, values: Mapping[fx.Node, Any]) -> None:
    """Write operations as others that do the same.

    ``view`` becomes ``reshape``, which takes every order of memory; ``x.mT`` a method; ``addmm`` a
    product and a sum; ``x.to(...)`` that changes nothing goes, and what a nonlinear operation makes
    of the network's own tensors alone becomes a buffer.

    Args:
        traced: its graph is changed.
        values: of every node, for any inputs.
    """
    _compute_own(traced, values)
    for node in list(traced.graph.nodes):
        if node.op == "call_method":
            _spell_method(traced, node, values)
        elif node.target is getattr and isinstance(values[node], Tensor):
            _call_method(node, values[node].dim())
        elif node.target is torch.addmm and len(node.args) == 3 and not node.kwargs:
            _multiply_then_add(traced, node)


def _compute_own(traced: Traced, values: Mapping[fx.Node, Any]) -> None:
    own: set[fx.Node] = set()
    for node in traced.graph.nodes:
        before = node.all_input_nodes
        if node.op == "get_attr" or (before and own.issuperset(before)):
            own.add(node)
        if node in own and node.op.startswith("call") and isinstance(values[node], Tensor):
            kind, module = kind_of(traced, node), traced.owner(node)
            linear = kind is not None and passes_spikes(kind, changing=0)
            trained = module is not None and any(True for _ in module.parameters())
            if not linear and not trained:
                name = free_name(traced.module, f"{node.name}_value")
                traced.module.register_buffer(name, values[node])
                node.op, node.target, node.args, node.kwargs = "get_attr", name, (), {}


def _spell_method(traced: Traced, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
    if node.target in ("view", "view_as"):
        as_type = any(isinstance(one, torch.dtype) for one in (*node.args, *node.kwargs.values()))
        if not as_type and not node.kwargs:
            node.target = {"view": "reshape", "view_as": "reshape_as"}[str(node.target)]
    elif node.target in ("to", "type_as"):
        x = node.args[0]
        assert isinstance(x, fx.Node)
        before, after = values[x], values[node]
        if before.dtype == after.dtype and before.device == after.device:
            node.replace_all_uses_with(x)
            traced.graph.erase_node(node)


def _call_method(node: fx.Node, dims: int) -> None:
    """Make an attribute that is a view of a tensor the call of a method that gives the same."""
    x, name = node.args
    if name in ("mT", "mH"):
        method, args = "transpose", [-2, -1]
    elif name in ("T", "H"):
        method, args = "permute", list(reversed(range(dims)))
    elif name == "data":
        method, args = "detach", []
    else:
        return
    node.op, node.target, node.args = "call_method", method, (x, *args)


def _multiply_then_add(traced: Traced, node: fx.Node) -> None:
    bias, x, weight = node.args
    with traced.graph.inserting_before(node):
        product = traced.graph.call_function(torch.matmul, (x, weight))
    product.stack_trace = node.stack_trace
    node.target, node.args = operator.add, (product, bias)
