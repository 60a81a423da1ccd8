"""Thresholds from activations: what a recipe's statistic makes of the calibration data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Granularity, Recipe

__all__ = ["STATISTICS", "Meter"]


class Meter:
    """Sees the activations of one site, batch by batch, and makes its threshold of them."""

    def __init__(self, site: Site, recipe: Recipe, steps: int) -> None:
        self.site = site
        self.recipe = recipe
        self.steps = steps

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """See one batch: what enters the activation and what leaves; return what is passed on."""
        self.see(a)
        return a

    @abstractmethod
    def see(self, a: Tensor) -> None:
        """Take one batch of activations ``[N, C, ...]`` into account."""

    @abstractmethod
    def threshold(self) -> Tensor:
        """A scalar, or one for each channel ``[C]`` or neuron ``[C, ...]``."""


def grouped(a: Tensor, granularity: Granularity) -> Tensor:
    """``[groups, values]``: the values that share a threshold."""
    if granularity == "layer":
        return a.reshape(1, -1)
    if granularity == "channel":
        return a.transpose(0, 1).flatten(1)
    return a.flatten(1).t()


def ungrouped(value: Tensor, site: Site, granularity: Granularity) -> Tensor:
    """A value for each group in the shape that a threshold has."""
    if granularity == "layer":
        return value.reshape(())
    return value if granularity == "channel" else value.reshape(site.shape)


class _Maximum(Meter):
    """The largest activation of each group."""

    value: Tensor | None = None

    def of_batch(self, values: Tensor) -> Tensor:
        """The statistic of one batch ``[groups, values]``."""
        return values.amax(1)

    def see(self, a: Tensor) -> None:
        """Take the larger one, or a moving average of batches."""
        new = self.of_batch(grouped(a, self.recipe.granularity))
        momentum = self.recipe.statistic.momentum
        if self.value is None:
            self.value = new
        elif momentum is None:
            self.value = torch.maximum(self.value, new)
        else:
            self.value = (1.0 - momentum) * self.value + momentum * new

    def threshold(self) -> Tensor:
        """Scaled as the recipe says."""
        assert self.value is not None
        value = self.value * self.recipe.statistic.scale
        return ungrouped(value, self.site, self.recipe.granularity)


class _Learned(Meter):
    """The threshold that the network was trained with."""

    def see(self, a: Tensor) -> None:
        """Nothing: no data is needed."""

    def threshold(self) -> Tensor:
        """Of the activation itself."""
        learned = self.site.learned
        if learned is None:
            raise ValueError(
                f"{self.site.name!r} ({self.site.line}) is a {type(self.site.activation).__name__} "
                f"without a trained threshold, which recipe {self.recipe.name!r} needs; train the "
                "network with rheobase.layers.QCFS, or take a recipe that calibrates"
            )
        return learned.reshape(()) if learned.numel() == 1 else learned


STATISTICS: dict[str, Callable[[Site, Recipe, int], Meter]] = {
    "max": _Maximum,
    "learned": _Learned,
}
