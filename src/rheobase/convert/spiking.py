"""Spiking replacements: what stands in the converted graph for an activation or an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Convention, Recipe
from rheobase.neurons import Neuron
from rheobase.neurons.converted import RateIF

__all__ = ["NEURONS", "Replacement", "Spiking", "folded", "unfolded"]


def unfolded(x: Tensor, steps: int) -> Tensor:
    """``[T * N, ...] -> [T, N, ...]``."""
    return x.unflatten(0, (steps, -1))  # type: ignore[no-untyped-call,no-any-return]


def folded(x: Tensor) -> Tensor:
    """``[T, N, ...] -> [T * N, ...]``."""
    return x.flatten(0, 1)


class Replacement(nn.Module):
    """Base of what replaces a node of the graph and knows time.

    It is called with the node's arguments and ``steps``: every operand that changes over time is
    ``[T * N, ...]``, time folded into the batch, and so is its result. State between calls is that
    of `rheobase.stateful.Stateful` modules inside it, so that it runs step by step as well.
    """

    conventions: ClassVar[tuple[Convention, ...]] = ("mean",)
    """How the values it takes and gives may be coded."""
    takes_constant: bool = False
    """Whether a first operand that is the same at every step may come once, ``[N, ...]``, with
    ``constant=True``."""


class Spiking(Replacement):
    """A neuron in an activation's place: takes current, gives spikes of the threshold's size.

    Args:
        neuron: its spikes are integers; ``v_threshold`` is their size.
        site: the activation that it replaces.
    """

    conventions = ("mean", "sum")
    takes_constant = True

    def __init__(self, neuron: Neuron, site: Site) -> None:
        super().__init__()
        self.neuron = neuron
        self.site = site

    def forward(self, x: Tensor, *, steps: int, constant: bool = False) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``; a constant ``[N, ...]`` is repeated."""
        current = x.expand(steps, *x.shape) if constant else unfolded(x, steps)
        return folded(self.neuron(current) * self.neuron.v_threshold)


def _integrate(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> nn.Module:
    rule = recipe.neuron
    neuron = RateIF(
        threshold,
        start=rule.start * threshold,
        drive=threshold * 0.5 / steps if rule.shift else None,
        hard=rule.reset == "zero",
        strict=rule.strict,
        levels=rule.levels,
    )
    return Spiking(neuron, site)


NEURONS: dict[str, Callable[[Site, Tensor, Recipe, int], nn.Module]] = {"integrate": _integrate}
"""Kind of a recipe's neuron rule -> ``(site, threshold, recipe, steps) -> module``; the threshold
broadcasts to ``[C, ...]``."""
