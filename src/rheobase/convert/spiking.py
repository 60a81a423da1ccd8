"""Spiking replacements: what stands in the converted graph for an activation or an operator."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Convention, Recipe
from rheobase.neurons import (
    STDBIF,
    ImbalancedSignedIF,
    MaskedRateIF,
    Neuron,
    OffsetRateIF,
    RateIF,
    SignedIF,
)
from rheobase.ops.eager import is_plain, watched
from rheobase.stateful import Stateful

__all__ = ["NEURONS", "Code", "Replacement", "Spiking", "folded", "unfolded"]


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


class Code(Replacement):
    """A code in an activation's place: it takes the whole value and sends it in few spikes.

    Attributes:
        site: the activation that it replaces.
        reach: the largest value that it can send.
    """

    site: Site
    reach: float = float("inf")

    @property
    @abstractmethod
    def sizes(self) -> Tensor:
        """Of its spikes."""

    @abstractmethod
    def count(self, x: Tensor, sent: Tensor) -> Tensor:
        """Spikes of each neuron, ``[N, ...]``, by what came in and went out, ``[T, N, ...]``."""


class Spiking(Replacement):
    """A neuron in an activation's place: takes current, gives spikes of the threshold's size.

    Args:
        neuron: its spikes are integers, its threshold is their size.
        site: the activation that it replaces.
        scale: the size of spikes where the neuron's own threshold is 1: the current is measured in
            it first.
        multiplied: multiply the current by 1 / scale instead of dividing by it.

    Attributes:
        sized: whether spikes have the threshold's size; else 1, where the weights that read them
            have it in them (`rheobase.convert.unit_spikes`).
    """

    conventions = ("mean", "sum")
    takes_constant = True
    sized = True
    can_send_units: ClassVar[bool] = True
    """Whether its spikes may have size 1, and their readers their size."""

    def __init__(
        self, neuron: Neuron, site: Site, scale: Tensor | None = None, *, multiplied: bool = False
    ) -> None:
        super().__init__()
        self.neuron = neuron
        self.site = site
        self.scale = None if scale is None else nn.Parameter(scale.detach().clone())
        self.multiplied = multiplied
        self.bias: Tensor | None
        self.register_buffer("bias", None)  # per channel, where calibration finds a lack

    @property
    def size(self) -> Tensor:
        """Of a spike: a scalar, or a tensor that broadcasts to ``[C, ...]``."""
        size = self.neuron.v_threshold if self.scale is None else self.scale
        return torch.as_tensor(size)

    def forward(self, x: Tensor, *, steps: int, constant: bool = False) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``; a constant ``[N, ...]`` is repeated."""
        if self.bias is not None:
            x = x + self.bias
        if self.scale is not None:
            x = x * (1.0 / self.scale) if self.multiplied else x / self.scale
        current = x.expand(steps, *x.shape) if constant else unfolded(x, steps)
        spikes, size = self.fire(current), self.size
        if not self.sized:
            return folded(spikes)
        if size.dtype != spikes.dtype or not self._owns(spikes):
            return folded(spikes * size)
        return folded(spikes.mul_(size))

    def _owns(self, spikes: Tensor) -> bool:
        """Whether nobody else looks at the spikes that the neuron gave."""
        return not torch.is_grad_enabled() and is_plain(spikes) and not watched(self.neuron)

    def fire(self, current: Tensor) -> Tensor:
        """Spikes ``[T, N, ...]``, integers."""
        spikes: Tensor = self.neuron(current)
        return spikes


class OneStepLate(Stateful):
    """What came one step before; zeros first."""

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, ...]``."""
        before = torch.zeros_like(x[0]) if self.carried is None else self.carried
        self.carry(x[-1])
        return torch.cat([before.unsqueeze(0), x[:-1]])


class DelayedSpiking(Spiking):
    """Fires by the membrane of the step before, as networks that fire first and charge then."""

    def __init__(self, neuron: Neuron, site: Site) -> None:
        super().__init__(neuron, site)
        self.late = OneStepLate()

    def fire(self, current: Tensor) -> Tensor:
        """Spikes of the current that came a step before."""
        return super().fire(self.late(current))


class RateSpiking(Spiking):
    """Sends spikes of size 1: the rate itself, in the place of an activation that is a rate."""

    can_send_units = False

    @property
    def size(self) -> Tensor:
        """1."""
        return torch.ones_like(torch.as_tensor(self.neuron.v_threshold))


def _place(
    make: Callable[..., Neuron], site: Site, threshold: Tensor, recipe: Recipe, **options: Any
) -> Replacement:
    """The neuron with its threshold, or with threshold 1 behind a scale."""
    rule = recipe.neuron
    if site.kind == "rate_norm":
        return RateSpiking(make(threshold, **options), site)
    if rule.scaled == "no":
        neuron = make(threshold, **options)
        return DelayedSpiking(neuron, site) if rule.delayed else Spiking(neuron, site)
    one = torch.ones_like(threshold)
    multiplied = rule.scaled == "multiplied"
    return Spiking(make(one, **options), site, threshold, multiplied=multiplied)


def _integrate(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    rule = recipe.neuron
    size = threshold / rule.members
    # Several spikes a step may not send more than the activation can give.
    most = math.inf if site.bound is None else max(1, int(site.bound / float(size.max()) + 1e-6))

    def make(size: Tensor) -> RateIF:
        return RateIF(
            size,
            start=rule.start * size,
            drive=size * 0.5 / steps if rule.shift else None,
            hard=rule.reset == "zero",
            strict=rule.strict,
            levels=min(max(rule.levels, rule.members), most),
            lowest=None if rule.lowest is None else rule.lowest * size,
        )

    return _place(make, site, size, recipe)


def _signed(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    rule = recipe.neuron

    def make(size: Tensor) -> SignedIF:
        lower = rule.negative * size if rule.tolerance is None else rule.tolerance
        return SignedIF(size, epsilon=lower, first=rule.start)

    return _place(make, site, threshold, recipe)


def _imbalanced(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    slope = site.slope
    if isinstance(slope, float) and slope == 0.0:
        return _integrate(site, threshold, recipe, steps)
    if not bool((torch.as_tensor(slope) > 0.0).all()):
        raise ValueError(
            f"{site.name!r} ({site.line}) has slopes for negative values that are not above 0, "
            "which signed spikes can't send; train them to stay above 0"
        )
    return _place(lambda size: ImbalancedSignedIF(slope, v_threshold=size), site, threshold, recipe)


def _masked(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    probe = recipe.neuron.probe
    return _place(lambda size: MaskedRateIF(size, probe=probe), site, threshold, recipe)


def _offset(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    probe = recipe.neuron.probe
    return _place(lambda size: OffsetRateIF(size, probe=probe), site, threshold, recipe)


def _stdb(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    return _place(STDBIF, site, threshold, recipe)


NEURONS: dict[str, Callable[[Site, Tensor, Recipe, int], Replacement]] = {
    "integrate": _integrate,
    "signed": _signed,
    "imbalanced": _imbalanced,
    "masked": _masked,
    "offset": _offset,
    "stdb": _stdb,
}
"""Kind of a recipe's neuron rule -> ``(site, threshold, recipe, steps) -> module``; the threshold
broadcasts to ``[C, ...]``."""
