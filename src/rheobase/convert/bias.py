"""Biases: where values are sums over T added once in all; a warning where resets outweigh them."""

from __future__ import annotations

import copy
import operator
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rheobase._errors import warn_caller
from rheobase.convert.kinds import WEIGHTED, kind_of
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced, add_module, line_of
from rheobase.stateful import Stateful

__all__ = ["BiasOverTime", "pads_with", "put_biases"]


class BiasOverTime(Replacement, Stateful):
    """A layer with weights whose bias is added at the first step, or a T-th of it at every step.

    Args:
        layer: with a bias.
        when: "once" or "spread".
        T: the steps that "spread" divides by.
        name: of the layer in the network.
    """

    conventions = ("sum",)

    def __init__(
        self, layer: nn.Module, when: Literal["once", "spread"], T: int, name: str = ""
    ) -> None:
        super().__init__()
        self.name = name
        self.layer = copy.deepcopy(layer)
        bias = self.layer.bias
        assert isinstance(bias, nn.Parameter)
        self.bias = bias
        self.layer.register_parameter("bias", None)
        self.when = when
        self.T = T

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        y = unfolded(self.layer(x), steps)
        axis = y.dim() - 1 if isinstance(self.layer, nn.Linear) else 2
        bias = self.bias.view(-1, *[1] * (y.dim() - 1 - axis))
        if self.when == "spread":
            return folded(y + bias / self.T)
        if self.carried is None:
            y = torch.cat([y[:1] + bias, y[1:]])
        self.carry(y.new_ones(()))
        return folded(y)


def put_biases(traced: Traced, recipe: Recipe, steps: int) -> None:
    """Let every bias of the graph come as the recipe's encoding says.

    Raises:
        ValueError: a bias that is no layer's own (batch norm that was not folded, a constant that
            is added), or a recipe of sums with biases at every step.
    """
    when = recipe.encoding.bias
    if "once" in recipe.prepare.operators:  # its operators see to all constants
        return
    if recipe.encoding.convention == "mean":
        if when != "every step":
            raise ValueError(
                f"recipe {recipe.name!r} codes values as means over T, so its biases come at every "
                f"step, not {when!r}"
            )
        if recipe.neuron.reset == "zero":
            _warn_of_biases(traced, recipe)
        return
    if when == "every step":
        raise ValueError(
            f"recipe {recipe.name!r} codes values as sums over T, where a bias at every step would "
            "count T times; take Encoding(..., bias='once') or 'spread'"
        )
    fixed: set[fx.Node] = set()  # does not depend on the input
    for node in list(traced.graph.nodes):
        module, kind = traced.owner(node), kind_of(traced, node)
        if node.op != "placeholder" and fixed.issuperset(node.all_input_nodes):
            fixed.add(node)
        elif _adds_constant(node, module, kind, fixed):
            raise ValueError(
                f"node {node.name!r} ({line_of(node)}) adds a constant at every step, which would "
                "count T times in a recipe of sums; put it into a layer's bias"
            )
        if isinstance(module, WEIGHTED) and module.bias is not None:
            name = str(node.target)
            timed = BiasOverTime(module, when, steps, name)
            node.target = add_module(traced, f"{name}_timed", timed)
    traced.module.recompile()


def _adds_constant(
    node: fx.Node, module: nn.Module | None, kind: str | None, fixed: set[fx.Node]
) -> bool:
    """Whether a node adds, or joins, what does not depend on the input."""
    if kind == "weighted" and module is None:  # a function; its weights are no bias
        given = [*node.args[2:3], node.kwargs.get("bias")]
        return any(one in fixed for one in given)
    if kind == "batch_norm":
        return True
    if kind == "add":
        return len(node.all_input_nodes) < (1 if node.target in _NEGATIONS else 2) or any(
            one in fixed for one in node.all_input_nodes
        )
    joins = node.target in (torch.cat, torch.concat, torch.stack)
    return (joins and any(one in fixed for one in node.all_input_nodes)) or pads_with(node, module)


_NEGATIONS = (operator.neg, torch.neg)


def pads_with(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node pads with a number that is not 0."""
    value = getattr(module, "value", None)
    if node.target is F.pad:
        value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else None)
    return value not in (None, 0, 0.0)


def _warn_of_biases(traced: Traced, recipe: Recipe) -> None:
    """A reset to zero makes rates smaller in every layer, which biases do not follow.

    Without biases a ReLU network that gets less gives less, in the same proportions.
    """
    names = [
        str(node.target)
        for node in traced.graph.nodes
        if isinstance(module := traced.owner(node), WEIGHTED) and module.bias is not None
    ]
    if names:
        warn_caller(
            f"recipe {recipe.name!r} resets membranes to zero, which loses what was above the "
            f"threshold: rates shrink from layer to layer, the biases of {len(names)} of them "
            f"({names[0]!r}, ...; batch norm leaves one) do not. Its paper trains networks without "
            "either; else take neuron=NeuronRule(reset='subtract')",
        )
