"""Neurons of converted transformers, as the pipeline puts them in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Code, Replacement, Spiking, folded, unfolded
from rheobase.layers import Quantise
from rheobase.neurons import (
    STBIF,
    BurstIF,
    FedBackBurstIF,
    GreedyCode,
    IntegerCode,
    MultiThreshold,
    Neuron,
    SalientCode,
)

__all__ = ["TRANSFORMER_NEURONS", "BurstSpiking", "Coded", "SizedSpiking"]


class SizedSpiking(Spiking):
    """A neuron whose spikes have the size of what they carry.

    Args:
        neuron: gives spikes with their size.
        site: the activation that it replaces.
        most: the most that a step can carry.
    """

    can_send_units = False

    def __init__(self, neuron: Neuron, site: Site, most: Tensor | float) -> None:
        super().__init__(neuron, site)
        self.most = most
        # The neuron's own are plain numbers, which no state dict holds.
        own = {name: getattr(neuron, name, None) for name in ("v_threshold", "v_negative")}
        self.own = [name for name, value in own.items() if value is not None]
        for name in self.own:
            exact = torch.float64 if isinstance(own[name], float) else None
            self.register_buffer(name, torch.as_tensor(own[name], dtype=exact).detach().clone())

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        """The neuron gets the thresholds that were saved."""
        super()._load_from_state_dict(*args, **options)
        old = torch.as_tensor(self.neuron.v_threshold).detach().clone()
        for name in self.own:
            value = self.get_buffer(name)
            plain = isinstance(getattr(self.neuron, name), float)
            setattr(self.neuron, name, value.item() if plain else value.clone())
        self.most = self.most * (self.get_buffer("v_threshold") / old)

    @property
    def size(self) -> Tensor:
        """The most that a step can carry."""
        return torch.as_tensor(self.most)

    def forward(self, x: Tensor, *, steps: int, constant: bool = False) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``; a constant ``[N, ...]`` is repeated."""
        current = x.expand(steps, *x.shape) if constant else unfolded(x, steps)
        return folded(self.send(current))

    def send(self, current: Tensor) -> Tensor:
        """``[T, N, ...]`` to what is sent, same shape."""
        spikes: Tensor = self.neuron(current)
        return spikes


class BurstSpiking(SizedSpiking):
    """A neuron that sends bursts."""

    neuron: BurstIF

    def __init__(self, neuron: BurstIF, site: Site) -> None:
        super().__init__(neuron, site, 1.0)

    def send(self, current: Tensor) -> Tensor:
        """``[T, N, ...]`` to what is sent, same shape.

        Raises:
            ValueError: there is no threshold for each feature, which are keys behind a softmax.
        """
        features = self.threshold_of(None)
        if features.dim() and features.shape[-1] not in (1, current.shape[-1]):
            raise ValueError(
                f"{self.site.name!r} ({self.site.line}) has thresholds for {features.shape[-1]} "
                f"features, got {current.shape[-1]}: behind a softmax features are keys, so give "
                "sequences of the length that it was calibrated with"
            )
        return super().send(current)

    @property
    def size(self) -> Tensor:
        """The most that a step can carry: a spike, and all halves behind it."""
        return self.threshold_of(None) * (1.0 + 0.5 * self.neuron.burst)

    def threshold_of(self, sent: Tensor | None) -> Tensor:
        """The size of the spikes in what was sent."""
        return torch.as_tensor(self.neuron.v_threshold)

    def spike_count(self, sent: Tensor) -> Tensor:
        """Spikes in what was sent: one whole, the rest halves."""
        halves = (2.0 * sent.abs() / self.threshold_of(sent)).round()
        return torch.where(halves >= 2.0, halves - 1.0, halves)


class BurstPair(BurstSpiking):
    """Two neurons for a value of either sign: one takes the current, the other its negative.

    Their thresholds are a last axis of two.
    """

    def threshold_of(self, sent: Tensor | None) -> Tensor:
        """That of the sign that was sent; the larger of both."""
        up, down = torch.as_tensor(self.neuron.v_threshold).unbind(-1)
        return torch.maximum(up, down) if sent is None else torch.where(sent < 0.0, down, up)

    def send(self, current: Tensor) -> Tensor:
        """``[T, N, ...]`` to what the two send, one minus the other."""
        up, down = self.neuron(torch.stack([current, -current], -1)).unbind(-1)
        return up - down  # type: ignore[no-any-return]


class Coded(Code):
    """A code of a few spikes in an activation's place: each step's value, coded by itself.

    Args:
        code: value to value, with ``spike_count``.
        site: what it replaces.
    """

    conventions = ("mean", "sum")

    def __init__(self, code: nn.Module, site: Site) -> None:
        super().__init__()
        self.code = code
        self.site = site

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to what is coded, same shape."""
        y: Tensor = self.code(x)
        return y

    @property
    def sizes(self) -> Tensor:
        """Unknown: they follow each input."""
        return torch.full((), torch.nan)

    def count(self, x: Tensor, sent: Tensor) -> Tensor:
        """Digits that are set."""
        spike_count: Any = self.code.spike_count
        return spike_count(x).sum(0)  # type: ignore[no-any-return]


def multi_threshold(site: Site, threshold: Tensor, recipe: Recipe, _: int) -> Replacement:
    """The neuron of ECMT; the threshold holds the smallest positive and negative one."""
    positive, negative = threshold.flatten().tolist()
    levels = int(recipe.neuron.levels)
    neuron = MultiThreshold(positive, v_negative=negative, levels=levels)
    return SizedSpiking(neuron, site, positive * 2.0 ** (levels - 1))


def st_bif(site: Site, threshold: Tensor, recipe: Recipe, _: int) -> Replacement:
    """The neuron of SpikeZIP-TF: the exact conversion of a quantiser."""
    quantiser = site.activation
    if not isinstance(quantiser, Quantise):
        quantiser = Quantise(
            int(recipe.neuron.levels), symmetric=getattr(quantiser, "signed", False)
        )
    neuron = STBIF(lowest=quantiser.lowest, highest=quantiser.highest)
    return Spiking(neuron, site, scale=threshold)


def burst(site: Site, threshold: Tensor, recipe: Recipe, _: int) -> Replacement:
    """The neuron of STA; a pair of them where the value may be negative."""
    behind_softmax = getattr(site.activation, "source", None) == "softmax"
    kind = FedBackBurstIF if behind_softmax else BurstIF
    neuron = kind(threshold, burst=int(recipe.neuron.levels), signed=True)
    signed = getattr(site.activation, "signed", False)
    return BurstPair(neuron, site) if signed else BurstSpiking(neuron, site)


def integer_code(site: Site, _: Tensor, recipe: Recipe, __: int) -> Replacement:
    """Integers in units of the mean magnitude, ``levels`` of them up to it, as bits."""
    return Coded(IntegerCode(recipe.neuron.levels), site)


def signed_digits(site: Site, _: Tensor, recipe: Recipe, __: int) -> Replacement:
    """The same integers, in the fewest spikes of either sign."""
    return Coded(IntegerCode(recipe.neuron.levels, form="signed_digits"), site)


def greedy_code(site: Site, _: Tensor, recipe: Recipe, __: int) -> Replacement:
    """Signed powers of two with a dead zone: less error for as many spikes."""
    return Coded(GreedyCode(recipe.neuron.levels, dead_zone=0.7), site)


def salient_code(site: Site, steps: Tensor, recipe: Recipe, _: int) -> Replacement:
    """Integers of 4 bits, and finer ones of salient channels, in several steps."""
    return Coded(SalientCode(steps.flatten()), site)


TRANSFORMER_NEURONS = {
    "multi_threshold": multi_threshold,
    "st_bif": st_bif,
    "burst": burst,
    "integer_code": integer_code,
    "signed_digits": signed_digits,
    "greedy_code": greedy_code,
    "salient_code": salient_code,
}
