"""Statistics for values of both signs: thresholds of converted transformers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rheobase.convert.statistics import Meter, best_threshold
from rheobase.convert.transformers.operands import Encode, HiddenUnits
from rheobase.layers import Quantise

__all__ = ["TRANSFORMER_STATISTICS"]


class SignedPercentile(Meter):
    """A percentile of the values and one of their negatives, averaged over batches: two thresholds.

    Where no value is negative both are the positive one. Source: ECMT, which takes for the p-th
    percentile of n values the int(p n)-th smallest.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.batches: list[Tensor] = []

    def see(self, values: Tensor) -> None:
        """One batch."""
        values = values.flatten()
        share = self.recipe.statistic.percentile / 100.0
        largest = values.kthvalue(max(1, int(share * values.numel()))).values
        smallest = values.kthvalue(max(1, int((1.0 - share) * values.numel()))).values
        self.batches.append(torch.stack([largest, -smallest]))

    def threshold(self) -> Tensor:
        """The positive and the negative threshold, scaled as the recipe says."""
        positive, negative = torch.stack(self.batches).mean(0)
        negative = torch.where(negative > 0.0, negative, positive)
        return torch.stack([positive, negative]) * self.recipe.statistic.scale


class ReleasedECMT(SignedPercentile):
    """`SignedPercentile`, but the constants of the released code behind softmax and GELU.

    It has them for vision transformers: 0.0125 behind softmax, 0.25 and 0.08 behind the activation
    of the hidden layer.
    """

    _FIXED: ClassVar = {"softmax": (0.0125, 0.0125), "gelu": (0.25, 0.08)}

    def threshold(self) -> Tensor:
        """The positive and the negative threshold."""
        activation = self.site.activation
        fixed = self._FIXED.get(activation.source) if isinstance(activation, Encode) else None
        return super().threshold() if fixed is None else torch.tensor(fixed, dtype=torch.float64)


class QuantiserStep(Meter):
    """The step of a quantiser: as trained, or the one of least squared error on the data.

    A value that is negative somewhere gets a symmetric quantiser. The search goes through
    ``candidates`` steps from the largest magnitude down.
    """

    candidates = 80

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.seen: list[Tensor] = []

    def see(self, values: Tensor) -> None:
        """One batch; at most a hundred thousand of its values."""
        activation = self.site.activation
        if isinstance(activation, Quantise):
            return
        activation.signed = bool(activation.signed) or bool((values < 0.0).any())  # type: ignore[assignment]
        values = values.flatten()
        self.seen.append(values[:: 1 + values.numel() // 100_000])

    def threshold(self) -> Tensor:
        """The step."""
        activation = self.site.activation
        if isinstance(activation, Quantise):
            return activation.scale.detach().clone()
        assert isinstance(activation, Encode)
        values = torch.cat(self.seen)
        quantiser = Quantise(int(self.recipe.neuron.levels), symmetric=activation.signed)
        best = values.abs().amax() / quantiser.highest
        return _least_error(values, best, quantiser, self.candidates)


def _least_error(values: Tensor, largest: Tensor, quantiser: Quantise, candidates: int) -> Tensor:
    low, high = quantiser.lowest, quantiser.highest
    errors = []
    steps = largest * torch.linspace(1.0, 1.0 / candidates, candidates)
    for step in steps:
        rounded = (values / step + 0.5).floor().clamp(low, high) * step
        errors.append((rounded - values).square().mean())
    return steps[torch.stack(errors).argmin()]


class BurstThreshold(Meter):
    """The threshold of least squared error at T steps, as STA's released code searches it.

    95 candidates in steps of a two-hundredth from the largest value down, values being cut off at
    the threshold and rounded down to a T-th of it; a moving average over batches. One for each
    feature (the last axis; of a convolution the channel), for each hidden unit of an approximator,
    and where a value may be negative for its two signs. What is never active gets the layer's
    largest (in the released code 0: it sends nothing, whatever comes).
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.joined: Tensor | None = None

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """One batch."""
        new = self._best(self._by_unit(a).flatten(0, -3))
        rule = self.recipe.statistic
        if self.joined is None:
            self.joined = new
        else:
            self.joined = (1.0 - rule.momentum) * self.joined + rule.momentum * new
        return a

    def _by_unit(self, a: Tensor) -> Tensor:
        """``[..., features, k]``: k hidden units, the two signs of a value, or 1."""
        activation = self.site.activation
        if isinstance(activation, HiddenUnits):
            return a
        if isinstance(activation, Encode):
            activation.signed = activation.signed or bool((a < 0.0).any())
            return torch.stack([a, -a], -1).relu()
        return (a.movedim(1, -1) if self._of_images() else a).unsqueeze(-1)

    def _of_images(self) -> bool:
        """Whether features are channels, not the last axis."""
        return len(self.site.shape) == 3 and type(self.site.activation) is nn.ReLU

    def _best(self, values: Tensor) -> Tensor:
        """``[values, ...]`` to ``[...]``."""
        groups = values.flatten(1).t()
        return best_threshold(groups, self.steps, apart=0.005).view(values.shape[1:])

    def threshold(self) -> Tensor:
        """``[features, k]`` of hidden units and signed values, else one for each feature."""
        assert self.joined is not None
        activation = self.site.activation
        found = torch.where(self.joined > 0.0, self.joined, self.joined.max())
        if isinstance(activation, HiddenUnits) or getattr(activation, "signed", False):
            return found
        single = found[:, 0]
        return single if self._of_images() or len(self.site.shape) == 1 else single[None]


class RobustWithWeights(Meter):
    """A percentile of the units' maxima, but no less than the largest weight or bias before them.

    Sources: Rueckauer et al. 2017 (robust normalisation); Mueller et al. 2021 for the weights.
    """

    largest: Tensor | None = None

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """One batch ``[N, ..., units]``."""
        maxima = a.flatten(0, -2).amax(0)
        self.largest = maxima if self.largest is None else torch.maximum(self.largest, maxima)
        return a

    def threshold(self) -> Tensor:
        """One for the layer."""
        assert self.largest is not None
        share = self.recipe.statistic.percentile / 100.0
        place = int(share * (len(self.largest) - 1))
        least = getattr(self.site.activation, "largest_weight", 0.0)
        return self.largest.sort().values[place].clamp_min(least)


class Saliency(Meter):
    """How many steps a channel takes: 1, or more if what a layer makes of it is large.

    With x what enters the layer of weight W, :math:`x \\cdot (x\\,W^T W)`, averaged over all words;
    channels up to the percentile take one step, salient ones as many as ``neuron.levels`` says.
    Source: SpikeLLM (optimal brain spiking, of activations).
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.sum: Tensor | float = 0.0

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """One batch ``[N, ..., C]``."""
        weight = getattr(self.site.activation, "weight", None)
        if weight is None:
            raise ValueError(
                f"{self.site.name!r} ({self.site.line}) stands before no linear layer, on whose "
                'weight saliency hangs; take the pass "encode_for_spikellm" or another statistic'
            )
        words = a.flatten(0, -2)
        self.sum = self.sum + (words * (words @ weight.T @ weight)).sum(0)
        return a

    def threshold(self) -> Tensor:
        """One number of steps for each channel, ``[1, C]`` of sequences."""
        assert isinstance(self.sum, Tensor)
        share = self.recipe.statistic.percentile / 100.0
        quota = max(1, int(share * len(self.sum)))
        usual = self.sum <= self.sum.sort().values[quota - 1]
        steps = torch.where(usual, 1.0, self.recipe.neuron.levels)
        return steps if len(self.site.shape) == 1 else steps.unsqueeze(0)


class Nothing(Meter):
    """No threshold: the neuron finds its own."""

    def see(self, values: Tensor) -> None:
        """Nothing."""

    def threshold(self) -> Tensor:
        """One."""
        return torch.ones(())


TRANSFORMER_STATISTICS = {
    "signed_percentile": SignedPercentile,
    "released_ecmt": ReleasedECMT,
    "quantiser_step": QuantiserStep,
    "burst_threshold": BurstThreshold,
    "robust_with_weights": RobustWithWeights,
    "saliency": Saliency,
    "none": Nothing,
}
