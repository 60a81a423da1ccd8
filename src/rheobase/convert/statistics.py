"""Thresholds from activations: what a recipe's statistic makes of the calibration data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rheobase._errors import warn_caller
from rheobase.convert.activations import Site
from rheobase.convert.recipe import Granularity, Recipe

__all__ = ["STATISTICS", "Meter", "best_threshold", "percentile_of_largest", "ungrouped"]


class Meter:
    """Sees the activations of one site, batch by batch, and makes its threshold of them.

    Attributes:
        silences: units that are never active on the data stay silent (their spikes have size 0 but
            for rounding); else they get a thousandth of the layer's largest threshold.
    """

    silences = False
    done = True
    """Whether going through the data again is of no more use."""

    def __init__(self, site: Site, recipe: Recipe, steps: int) -> None:
        self.site = site
        self.recipe = recipe
        self.steps = steps
        self.samples = 0
        self.batch = 0

    def announce(self, samples: int, batch: int) -> None:
        """How many samples there are in all, and in the batch that comes."""
        self.samples, self.batch = samples, batch

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """See one batch: what enters the activation and what leaves; return what is passed on."""
        self.see(grouped(a, self.recipe.granularity))
        return a

    @abstractmethod
    def see(self, values: Tensor) -> None:
        """Take the activations of one batch, ``[groups, values]``, into account."""

    @abstractmethod
    def value(self) -> Tensor:
        """The threshold of each group, before scaling."""

    def threshold(self) -> Tensor:
        """A scalar, or one for each channel ``[C]`` or neuron ``[C, ...]``."""
        rule = self.recipe.statistic
        value = self.value() * rule.scale / (self.steps if rule.shared_by_steps else 1)
        return ungrouped(value, self.site, self.recipe.granularity)


def grouped(a: Tensor, granularity: Granularity) -> Tensor:
    """``[groups, values]``: the values that share a threshold, in any order."""
    if granularity == "layer":
        last = a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last)
        return (a.permute(0, 2, 3, 1) if last else a).reshape(1, -1)
    if granularity == "channel":
        return a.transpose(0, 1).flatten(1)
    return a.flatten(1).t()


def ungrouped(value: Tensor, site: Site, granularity: Granularity) -> Tensor:
    """A value for each group in the shape that a threshold has."""
    if granularity == "layer":
        return value.reshape(())
    return value if granularity == "channel" else value.reshape(site.shape)


class _OfBatches(Meter):
    """A statistic of each batch, joined as the recipe says; a subclass pools what it must."""

    joined: Tensor | None = None

    @abstractmethod
    def of_batch(self, values: Tensor) -> Tensor:
        """The statistic of ``[groups, values]``."""

    def see(self, values: Tensor) -> None:
        """Join one batch's statistic."""
        new = self.of_batch(values)
        rule = self.recipe.statistic
        if self.joined is None:
            self.joined = new
        elif rule.batches == "average":
            self.joined = (1.0 - rule.momentum) * self.joined + rule.momentum * new
        else:
            self.joined = torch.maximum(self.joined, new)

    def value(self) -> Tensor:
        """What the batches gave."""
        assert self.joined is not None
        return self.joined


class _Maximum(_OfBatches):
    """The largest activation of each group."""

    def of_batch(self, values: Tensor) -> Tensor:
        """The maximum."""
        return values.amax(1)


class _Percentile(_OfBatches):
    """A percentile of each group, of all values or of those that are not zero."""

    def __init__(self, site: Site, recipe: Recipe, steps: int) -> None:
        super().__init__(site, recipe, steps)
        if not 0.0 < recipe.statistic.percentile <= 100.0:
            raise ValueError(
                f"percentile must be above 0 and at most 100, got {recipe.statistic.percentile}"
            )
        self.largest: Tensor | None = None
        self.counts: Tensor | None = None

    def see(self, values: Tensor) -> None:
        """Keep as many of the largest values as the percentile of all can need, or join batches."""
        if self.recipe.statistic.batches != "pooled":
            return super().see(values)
        counts = self._counts(values)
        if self.largest is None or self.counts is None:
            self.largest, self.counts = values.new_empty(values.shape[0], 0), 0 * counts
        self.counts = self.counts + counts
        both = torch.cat([self.largest, values], 1)
        share = 1.0 - self.recipe.statistic.percentile / 100.0
        needed = 3 + int(share * values.shape[1] * self.samples / self.batch)
        self.largest = both.topk(min(needed, both.shape[1]), 1).values
        return None

    def value(self) -> Tensor:
        """Of everything seen, or as the batches gave it."""
        if self.largest is None or self.counts is None:
            return super().value()
        return self._of_largest(self.largest, self.counts)

    def of_batch(self, values: Tensor) -> Tensor:
        """By sorting: `torch.quantile` takes 16 million values at most."""
        return self._of_largest(values.sort(1, descending=True).values, self._counts(values))

    def _counts(self, values: Tensor) -> Tensor:
        """How many values of each group the percentile is of."""
        if self.recipe.statistic.nonzero:
            return (values != 0.0).sum(1)
        return torch.full(values.shape[:1], values.shape[1], device=values.device)

    def _of_largest(self, largest: Tensor, counts: Tensor) -> Tensor:
        """The percentile of ``counts`` values of which the largest are given, in falling order."""
        rule = self.recipe.statistic
        return percentile_of_largest(largest, counts, rule.percentile, rule.nearest)


def percentile_of_largest(
    largest: Tensor, counts: Tensor, percentile: float, nearest: bool = False
) -> Tensor:
    """A percentile of each group, ``[groups]``; 0 of no values.

    Args:
        largest: the largest values of each, in falling order, ``[groups, n]``.
        counts: how many values there are of each, ``[groups]``.
        percentile: in percent.
        nearest: take the nearest value, instead of one between two.
    """
    last = (counts - 1).clamp(min=0).double()
    place = last * (percentile / 100.0)
    below = place.floor()
    share = (place - below).to(largest.dtype)
    low = _pick(largest, last - below)
    high = _pick(largest, (last - below - 1).clamp(min=0))
    if nearest:
        return torch.where(share > 0.5, high, low)
    return torch.where(counts > 0, torch.lerp(low, high, share), torch.zeros_like(low))


def _pick(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place.long().unsqueeze(1)).squeeze(1)


_CANDIDATES = 95
_AT_ONCE = 2**22  # boundaries between levels, of all candidates and groups


def best_threshold(values: Tensor, steps: int, apart: float = 0.01) -> Tensor:
    """The threshold of each group whose clipped, floored rates are nearest to its values.

    Of 95 candidates ``maximum * (1 - i * apart)``, that with the least squared error of
    ``floor(clip(a T / threshold, 0, T)) threshold / T``. Source: Li et al. 2021 (SNN calibration).
    With the values in order, the sums of those between two levels tell the error of a candidate.

    Args:
        values: ``[groups, values]``, none below 0.
        steps: T.
        apart: how far candidates lie apart, as a share of the maximum.

    >>> best_threshold(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]), 4).tolist()
    [4.0]
    """
    most = max(1, _AT_ONCE // (_CANDIDATES * steps))
    if len(values) > most:
        parts = torch.split(values, most)
        return torch.cat([best_threshold(part, steps, apart) for part in parts])
    top = values.amax(1)
    candidates = torch.stack([top * (1.0 - i * apart) for i in range(_CANDIDATES)], 1)
    ordered = _ordered(values).double()
    sums = torch.nn.functional.pad(ordered.cumsum(1), (1, 0))
    level = candidates.double() / steps
    k = torch.arange(1, steps + 1, device=values.device)
    # The last is the candidate itself, to the last bit: the largest value reaches it.
    bounds = (candidates.double().unsqueeze(2) * (k.double() / steps)).flatten(1)
    below = torch.searchsorted(ordered, bounds)
    shape = *candidates.shape, steps
    # Between level k and the next are N_k values of sum S_k: the sums over k of k S_k and k^2 N_k.
    first = steps * sums[:, -1:] - sums.gather(1, below).view(shape).sum(2)
    second = steps**2 * values.shape[1] - ((2 * k - 1) * below.view(shape)).sum(2)
    errors = level * level * second - 2.0 * level * first
    return candidates.gather(1, errors.argmin(1, keepdim=True)).squeeze(1)


def _ordered(values: Tensor) -> Tensor:
    """Each row in rising order; on CPUs by NumPy, which sorts with vector instructions."""
    if values.device.type != "cpu" or values.dtype == torch.bfloat16:  # which NumPy lacks
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.detach().contiguous().numpy(), axis=1))


class _LeastSquares(_OfBatches):
    """`best_threshold` of each batch."""

    def of_batch(self, values: Tensor) -> Tensor:
        """For the T of the conversion."""
        return best_threshold(values, self.steps)


_CUT_OFF = 0.05  # of a layer; a ResNet-20 that lost more than this in some layer lost accuracy


class _LocalBalance(Meter):
    """Grows each threshold by twice the mean excess over it, batch by batch; passes on what is
    below.

    A step is small where few values are large, so it takes hundreds of batches, small ones as well
    as large; what the thresholds still cut off of the last tells whether it was enough.
    Source: Bu et al. 2025 (inference-scale conversion, local threshold balancing), CVPR.
    """

    silences = True
    balanced: Tensor | None = None
    cut_off = 0.0

    @property
    def done(self) -> bool:  # type: ignore[override]
        """Hardly anything is cut off any more."""
        return self.cut_off <= _CUT_OFF / 2.0

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """Clip at the new threshold: the next layer is balanced for what it will get."""
        self.see(grouped(a, self.recipe.granularity))
        threshold = ungrouped(self.value(), self.site, self.recipe.granularity)
        if threshold.dim() == 1 and a.dim() > 2:
            threshold = threshold.view(-1, *[1] * (a.dim() - 2))
        return threshold - (threshold - z.relu()).relu()

    def see(self, values: Tensor) -> None:
        """One step of balancing."""
        if self.balanced is None:
            self.balanced = values.new_zeros(values.shape[0])
        excess = (values - self.balanced.unsqueeze(1)).relu()
        self.balanced = self.balanced + (2.0 * excess).mean(1)
        self.cut_off = (excess.sum() / values.sum()).nan_to_num().item()

    def value(self) -> Tensor:
        """As it stands."""
        assert self.balanced is not None
        return self.balanced

    def threshold(self) -> Tensor:
        """Warns where balancing was broken off far too early."""
        if self.cut_off > _CUT_OFF:
            warn_caller(
                f"local balance of {self.site.name!r} ({self.site.line}) is not done: its "
                f"thresholds cut off {100.0 * self.cut_off:.0f} % of its activation still; give "
                "more calibration inputs or smaller batches, and go through them until it is, as "
                'in statistic=Statistic("local_balance", batch_size=8, iterations=None)',
            )
        return super().threshold()


class _Learned(Meter):
    """The threshold that the network was trained with."""

    def see(self, values: Tensor) -> None:
        """Nothing: no data is needed."""

    def value(self) -> Tensor:
        """Of the activation itself."""
        learned = self.site.learned
        if learned is None:
            raise ValueError(
                f"{self.site.name!r} ({self.site.line}) is a {type(self.site.activation).__name__} "
                f"without a trained threshold, which recipe {self.recipe.name!r} needs; train the "
                "network with rheobase.layers.QCFS, or take a recipe that calibrates"
            )
        return learned

    def threshold(self) -> Tensor:
        """In the shape it was trained in."""
        learned = self.value() * self.recipe.statistic.scale
        return learned.reshape(()) if learned.numel() == 1 else learned


class _Constant(Meter):
    """The recipe's ``scale`` itself."""

    def see(self, values: Tensor) -> None:
        """Remember the dtype."""
        self.like = values

    def value(self) -> Tensor:
        """One for all."""
        return self.like.new_ones(())

    def threshold(self) -> Tensor:
        """One for all."""
        return self.value() * self.recipe.statistic.scale


STATISTICS: dict[str, Callable[[Site, Recipe, int], Meter]] = {
    "max": _Maximum,
    "percentile": _Percentile,
    "least_squares": _LeastSquares,
    "local_balance": _LocalBalance,
    "learned": _Learned,
    "constant": _Constant,
    "diehl_data": _Maximum,  # and the weights: see bounds
    "model_bound": _Constant,  # then by the weights alone: see bounds
    "max_current": _Constant,  # then by what runs through the spiking network: see post
}
"""What a threshold is made of, by name: ``(site, recipe, T) -> Meter``."""
