"""Biases: added once in all where values are sums over T; the reset that they bear."""

from __future__ import annotations

import copy
import operator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from rheobase._errors import warn_caller
from rheobase.convert.affine import AffineOnce, ChannelAffine, operation_of
from rheobase.convert.kinds import WEIGHTED, kind_of
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced, add_module, line_of
from rheobase.stateful import Stateful

__all__ = ["BiasOverTime", "pads_with", "put_biases", "with_fitting_reset"]


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
        ValueError: a recipe of sums with biases at every step, or one that spreads them over T and
            a constant that is no layer's own.
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
        return
    if when == "every step":
        raise ValueError(
            f"recipe {recipe.name!r} codes values as sums over T, where a bias at every step would "
            "count T times; take Encoding(..., bias='once') or 'spread'"
        )
    fixed: set[fx.Node] = set()  # does not depend on the input
    spiking: set[fx.Node] = set()  # depends on spikes; what does not comes once as it is
    for node in list(traced.graph.nodes):
        module, kind = traced.owner(node), kind_of(traced, node)
        if isinstance(module, Replacement) or not spiking.isdisjoint(node.all_input_nodes):
            spiking.add(node)
        own = node.op != "placeholder" and fixed.issuperset(node.all_input_nodes)
        if own or kind == "like" or _is_size(node):
            fixed.add(node)
        elif when == "spread" or node in spiking:
            _put_bias(traced, node, when, steps, fixed)
    traced.module.recompile()


def _is_size(node: fx.Node) -> bool:
    growth = node.meta.get("growth")
    return growth is not None and growth.what in ("number", "sizes")


def _put_bias(
    traced: Traced, node: fx.Node, when: Literal["once", "spread"], steps: int, fixed: set[fx.Node]
) -> None:
    """Let a node that depends on the input add what it adds once in all."""
    module, kind = traced.owner(node), kind_of(traced, node)
    if isinstance(module, _BatchNorm):
        module = ChannelAffine(module)
    if isinstance(module, (*WEIGHTED, ChannelAffine)):
        if module.bias is not None:
            name = str(node.target)
            timed = BiasOverTime(module, when, steps, name)
            node.target = add_module(traced, f"{name}_timed", timed)
        return
    if not _adds_constant(node, module, kind, fixed):
        return
    operands = _operands(node, kind, fixed)
    if when == "spread" or not operands:
        raise ValueError(
            f"node {node.name!r} ({line_of(node)}) adds a constant at every step, which would "
            "count T times in a recipe of sums; put it into a layer's bias"
        )
    once = AffineOnce(operation_of(traced, node), operands)
    node.target = add_module(traced, f"{node.name}_once", once)
    node.op = "call_module"


def _operands(node: fx.Node, kind: str | None, fixed: set[fx.Node]) -> tuple[tuple[int, ...], ...]:
    """Where in a node's arguments its input is; nothing if some of it is elsewhere."""
    first: Any = node.args[0] if node.args else None
    if isinstance(first, list | tuple):
        places: dict[tuple[int, ...], Any] = {(0, i): part for i, part in enumerate(first)}
    else:
        taken = {"add": (0, 1), "where": (1, 2)}.get(str(kind), (0,))
        places = {(i,): node.args[i] for i in taken if i < len(node.args)}
    found = {
        place: arg for place, arg in places.items() if isinstance(arg, fx.Node) and arg not in fixed
    }
    elsewhere = set(node.all_input_nodes) - fixed - set(found.values())
    return () if elsewhere else tuple(found)


def _adds_constant(
    node: fx.Node, module: nn.Module | None, kind: str | None, fixed: set[fx.Node]
) -> bool:
    """Whether a node adds, or joins, what does not depend on the input."""
    if kind == "weighted" and module is None:  # a function; its weights are no bias
        given = [*node.args[2:3], node.kwargs.get("bias")]
        return any(one in fixed for one in given)
    if kind == "batch_norm":  # a function
        return True
    if kind == "add":
        return len(node.all_input_nodes) < (1 if node.target in _NEGATIONS else 2) or any(
            one in fixed for one in node.all_input_nodes
        )
    if kind == "where":
        numbers = [one for one in node.args[1:] if isinstance(one, int | float)]
        return any(numbers) or not fixed.isdisjoint(node.args[1:])
    joins = node.target in (torch.cat, torch.concat, torch.stack)
    return (joins and any(one in fixed for one in node.all_input_nodes)) or pads_with(node, module)


_NEGATIONS = (operator.neg, torch.neg)


def pads_with(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node pads with a number that is not 0."""
    value = getattr(module, "value", None)
    if node.target is F.pad:
        value = node.kwargs.get("value", node.args[3] if len(node.args) > 3 else None)
    return value not in (None, 0, 0.0)


def with_fitting_reset(traced: Traced, recipe: Recipe) -> Recipe:
    """The recipe with its reset decided for this network; batch norm is in the weights by now.

    A reset to zero loses what was above the threshold: rates shrink from layer to layer, biases do
    not, and outweigh them. Without biases a ReLU network that gets less gives less, in the same
    proportions.
    """
    if recipe.neuron.reset == "subtract":
        return recipe
    names, insisted = _biased(traced), recipe.neuron.reset == "zero"
    if names:
        lost = (
            "loses what was above the threshold: rates shrink from layer to layer, the biases of "
            f"{len(names)} of them ({names[0]!r}, ...; batch norm leaves one) do not"
        )
        warn_caller(
            f"a reset to zero {lost}; neuron=NeuronRule(reset='subtract') keeps it"
            if insisted
            else f"recipe {recipe.name!r} resets membranes to zero, as its paper does in networks "
            f"without biases; here that {lost}. So membranes are reset by subtraction; "
            "neuron=NeuronRule(reset='zero') insists on zero"
        )
    reset: Literal["subtract", "zero"] = "subtract" if names and not insisted else "zero"
    return replace(recipe, neuron=replace(recipe.neuron, reset=reset))


def _biased(traced: Traced) -> list[str]:
    """The layers with weights that have a bias."""
    return [
        str(node.target)
        for node in traced.graph.nodes
        if isinstance(module := traced.owner(node), WEIGHTED)
        and module.bias is not None
        and bool(module.bias.any())
    ]
