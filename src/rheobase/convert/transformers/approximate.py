"""STA's operators: what a hidden layer of spiking ReLUs computes, in the place of a function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rheobase.convert.kinds import kind_of
from rheobase.convert.pipeline import Operator
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced, line_of
from rheobase.convert.transformers.approximators import (
    ReLUApproximator,
    approximated_layer_norm,
    approximated_softmax,
)
from rheobase.convert.transformers.attention import masked_softmax, without_later_keys
from rheobase.convert.transformers.operators import AccumulatedOperator, operands_of, sequences
from rheobase.neurons import BurstIF

__all__ = ["APPROXIMATED", "SpikingApproximator"]


class SpikingApproximator(Replacement):
    """A function of one variable by spiking hidden units, one layer of bursts.

    Each unit's threshold is the largest value it meets in the range, over the most that a step can
    carry: one spike and ``burst`` halves.

    Args:
        approximator: the function.
        burst: halves behind a spike.
    """

    def __init__(self, approximator: ReLUApproximator, burst: int) -> None:
        super().__init__()
        self.approximator = approximator
        largest = approximator.high - approximator.knots
        self.neuron = BurstIF(largest / (1.0 + 0.5 * burst), burst=burst, signed=True)

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        h = self.approximator.hidden(unfolded(x, steps))
        self.neuron.v_threshold = torch.as_tensor(self.neuron.v_threshold).to(h)
        return folded(self.approximator.read(self.neuron(h)))


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "softplus": F.softplus,
    "selu": F.selu,
    "softsign": F.softsign,
    "hardsigmoid": F.hardsigmoid,
}


def one_variable(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """64 units from -8 to 8, where nearly all of what meets a transformer's activation lies."""
    if node not in sequences(traced, recipe):
        return None
    function = _FUNCTIONS[str(kind_of(traced, node))]
    return SpikingApproximator(ReLUApproximator(function, -8.0, 8.0, 64), int(recipe.neuron.levels))


def softmax(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """The approximated softmax over the last axis, of what has come in so far."""
    if node not in sequences(traced, recipe):
        return None
    module = traced.owner(node)
    masked = node.target is masked_softmax and node.args[1:2] not in ((), (None,))
    last = node.target is masked_softmax or getattr(module, "dim", None) == -1
    if masked or not last:
        raise ValueError(
            f"node {node.name!r} ({line_of(node)}) is a softmax with a mask of its own or over "
            "another axis than the last, which STA's approximation does not take; take 'ecmt'"
        )
    return AccumulatedOperator(_softmax, operands_of(traced, node), "mean")


def _softmax(scores: Tensor, mask: object = None, causal: bool = False, **_: Any) -> Tensor:
    """Over the last axis; no query attends to a later key if ``causal``."""
    if causal:
        scores = without_later_keys(scores, -1e9)
    return approximated_softmax(scores)


def layer_norm(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """The approximated norm of what has come in so far."""
    norm = traced.owner(node)
    if node not in sequences(traced, recipe) or not isinstance(norm, nn.LayerNorm):
        return None
    return AccumulatedOperator(_Norm(copy.deepcopy(norm)), operands_of(traced, node), "mean")


class _Norm(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """The approximated norm."""
        return approximated_layer_norm(x, self.norm)


APPROXIMATED: dict[str, Operator] = {
    **dict.fromkeys(_FUNCTIONS, one_variable),
    "softmax": softmax,
    "layer_norm": layer_norm,
}
