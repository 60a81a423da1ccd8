"""Under the "sum" convention, what does not depend on the input enters at the first step only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from rheobase.convert.pipeline import Operator
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.transformers.operands import input_dependent
from rheobase.convert.transformers.operators import operation_of, sequences
from rheobase.layers import FirstStepBias
from rheobase.stateful import Stateful

__all__ = ["ONCE", "AffineOnce", "LayerOnce"]


class LayerOnce(Replacement):
    """A layer with weights, its bias once; see `rheobase.layers.FirstStepBias`."""

    conventions = ("sum",)

    def __init__(self, layer: Callable[[Tensor], Tensor], spread: int) -> None:
        super().__init__()
        self.once = FirstStepBias(layer, spread)

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        return folded(self.once(unfolded(x, steps)))


class AffineOnce(Replacement, Stateful):
    """An affine operation whose other operands do not depend on the input: those enter once.

    Args:
        operation: what the node does, called with its arguments.
        operands: where in its arguments the sequences are: a place, or the place of a list and one
            in it.
    """

    conventions = ("sum",)

    def __init__(
        self, operation: Callable[..., Tensor], operands: tuple[tuple[int, ...], ...]
    ) -> None:
        super().__init__()
        self.operation = operation
        self.operands = operands

    def forward(self, *args: Any, steps: int, **kwargs: Any) -> Tensor:
        """The node's arguments, operands as ``[T * N, ...]``, to ``[T * N, ...]``."""
        y = unfolded(self.operation(*args, **kwargs), steps)
        constant = unfolded(self.operation(*self._zeroed(args), **kwargs), steps)
        later = torch.ones(steps, dtype=y.dtype, device=y.device)
        if self.carried is None:
            later[0] = 0.0
        self.carry(later.new_ones(()))
        return folded(y - constant * later.view(-1, *[1] * (y.dim() - 1)))

    def _zeroed(self, args: tuple[Any, ...]) -> list[Any]:
        given: list[Any] = [list(arg) if isinstance(arg, list | tuple) else arg for arg in args]
        for place, *inner in self.operands:
            if inner:
                given[place][inner[0]] = torch.zeros_like(given[place][inner[0]])
            else:
                given[place] = torch.zeros_like(given[place])
        return given


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
