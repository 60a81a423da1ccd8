"""Under the "sum" convention, what does not depend on the input enters at the first step only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from rheobase.convert.affine import AffineOnce, operation_of
from rheobase.convert.pipeline import Operator
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.transformers.operands import input_dependent
from rheobase.convert.transformers.operators import sequences
from rheobase.layers import FirstStepBias

__all__ = ["ONCE", "LayerOnce"]


class LayerOnce(Replacement):
    """A layer with weights, its bias once; see `rheobase.layers.FirstStepBias`."""

    conventions = ("sum",)

    def __init__(self, layer: Callable[[Tensor], Tensor], spread: int) -> None:
        super().__init__()
        self.once = FirstStepBias(layer, spread)

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        return folded(self.once(unfolded(x, steps)))


def layer_once(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """A layer that has a bias and meets spikes."""
    module = traced.owner(node)
    if node.args[0] not in sequences(traced, recipe):
        return None
    if module is None:
        return AffineOnce(operation_of(traced, node), ((0,),))
    if getattr(module, "bias", None) is None:
        return None
    spread = int(recipe.neuron.levels) if recipe.encoding.bias == "spread" else 1
    operation = operation_of(traced, node)
    return LayerOnce(operation, spread)


def sum_once(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """A sum of spikes and what does not depend on the input."""
    places: dict[tuple[int, ...], Any] = {(i,): arg for i, arg in enumerate(node.args)}
    return _affine(traced, node, recipe, places)


def join_once(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """Spikes joined with what does not depend on the input, such as a class token."""
    parts = node.args[0] if node.target in _JOINS else None
    if not isinstance(parts, list | tuple):
        return None
    return _affine(traced, node, recipe, {(0, i): part for i, part in enumerate(parts)})


def _affine(
    traced: Traced, node: fx.Node, recipe: Recipe, places: dict[tuple[int, ...], Any]
) -> Replacement | None:
    dependent = input_dependent(traced)
    operands = tuple(place for place, arg in places.items() if arg in dependent)
    if node not in sequences(traced, recipe) or len(operands) == len(places):
        return None
    return AffineOnce(operation_of(traced, node), operands)


_JOINS = (torch.cat, torch.concat, torch.stack)

ONCE: dict[str, Operator] = {
    "weighted": layer_once,
    "batch_norm": layer_once,
    "add": sum_once,
    "shape": join_once,
}
