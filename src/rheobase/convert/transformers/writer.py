"""Writes operations into a graph in the place of one node."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from rheobase.convert.kinds import KINDS, kind_of
from rheobase.convert.trace import Traced, add_module, line_of

__all__ = ["Writer", "write_out"]


def write_out(traced: Traced, kind: str, write: Callable[..., Any]) -> None:
    """Replace every node of a kind by what ``write`` makes of its arguments.

    Args:
        traced: the graph.
        kind: of node.
        write: ``(writer, module or None, *arguments) -> what stands for the node's value``; a tuple
            for a value that is one.

    Raises:
        ValueError: the node's module is of a subclass that computes something else.
    """
    for node in list(traced.graph.nodes):
        if kind_of(traced, node) == kind:
            with traced.graph.inserting_before(node):
                Writer(traced, node).replace(write)


class Writer:
    """Appends operations to the graph in the place of one node."""

    def __init__(self, traced: Traced, node: fx.Node) -> None:
        self.traced = traced
        self.node = node
        self.tracer = fx.proxy.GraphAppendingTracer(traced.graph)

    def replace(self, write: Any) -> None:
        """Write the operations and let the node's users take their result."""
        module = self.traced.owner(self.node)
        self._check_forward(module)
        kept = set(self.traced.graph.nodes)
        proxy: Any = partial(fx.Proxy, tracer=self.tracer)
        arguments: Any = fx.map_arg(self.node.args, proxy)
        named: Any = fx.map_arg(self.node.kwargs, proxy)
        out = write(self, module, *arguments, **named)
        for new in self.traced.graph.nodes:
            if new not in kept:
                new.stack_trace = self.node.stack_trace
        if isinstance(out, tuple):
            self._take_parts(out)
        else:
            self.node.replace_all_uses_with(out.node)
        self.traced.graph.erase_node(self.node)

    def call(self, name: str, x: fx.Proxy) -> fx.Proxy:
        """A module of the network, by name, on a value."""
        return fx.Proxy(self.traced.graph.call_module(name, (x.node,)), self.tracer)

    def module(self, name: str, module: nn.Module, x: fx.Proxy) -> fx.Proxy:
        """A new module on a value."""
        return self.call(add_module(self.traced, f"{self.node.name}_{name}", module), x)

    def function(self, function: Callable[..., Tensor], *arguments: Any) -> Any:
        """A function on values, as one operation."""
        return self.tracer.create_proxy("call_function", function, arguments, {})

    def part(self, name: str, *inputs: fx.Proxy | None, **named: Any) -> Any:
        """A part of the node's own module on values."""
        nodes = tuple(None if x is None else x.node for x in inputs)
        named = {k: v.node if isinstance(v, fx.Proxy) else v for k, v in named.items()}
        called = self.traced.graph.call_module(f"{self.node.target}.{name}", nodes, named)
        return fx.Proxy(called, self.tracer)

    def weight(self, name: str) -> Any:
        """A parameter of the node's own module."""
        return fx.Proxy(self.traced.graph.get_attr(f"{self.node.target}.{name}"), self.tracer)

    def linear(self, name: str, weight: Tensor, bias: Tensor | None, x: fx.Proxy) -> fx.Proxy:
        """A linear layer with some of the node's own weights."""
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        return self.call(add_module(self.traced, f"{self.node.target}_{name}", layer), x)

    def refuse(self, what: str) -> NoReturn:
        """Raise an error that names the node."""
        raise ValueError(
            f"node {self.node.name!r} ({self.node.target}, {line_of(self.node)}) {what}, which "
            "conversion does not take; write that part of the network without it"
        )

    def _check_forward(self, module: nn.Module | None) -> None:
        """What PyTorch's class computes is what is written; a subclass may do something else."""
        own: Any = type(module)
        known = next((c for c in own.__mro__ if c in KINDS), None)
        if known is not None and own.forward is not known.forward:
            self.refuse(
                f"is a {type(module).__name__} with a forward of its own inside a module of "
                "PyTorch's, or kept whole as a leaf"
            )

    def _take_parts(self, parts: tuple[fx.Proxy | None, ...]) -> None:
        """The node gave a tuple: its users take parts out of it."""
        for user in list(self.node.users):
            place = user.args[1] if user.target is operator.getitem else None
            part = parts[place] if isinstance(place, int) else None
            if part is not None:
                user.replace_all_uses_with(part.node)
            elif user.users or user.op == "output":
                self.refuse("gives a tuple that is used whole, or a part that it was not asked for")
            self.traced.graph.erase_node(user)
