"""Losses on the membranes of a network: how they are distributed around the threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rheobase._numbers import Positive, numbers_checked
from rheobase.neurons import Membrane

__all__ = ["MEMBRANE_LOSSES", "MPDLoss", "MembraneLoss", "im_loss", "rmp_loss"]

MembraneLoss = Callable[[Sequence[Membrane]], Tensor]
"""What makes a scalar of the membranes that `rheobase.neurons.record_membranes` found."""


def im_loss(membranes: Sequence[Membrane]) -> Tensor:
    r"""Return the information-maximisation loss: mean membranes are to lie at the threshold.

    :math:`\frac1L \sum_l (\overline{h_l} - V_{th})^2`, the mean of each layer over T, N and its
    neurons: a layer that fires half of the time tells most. The paper adds it with weight 2.
    The released code, by its own word simplified, has the mean of each step's current less
    :math:`1/(2T)` instead, of the layers between the first and the last, with weight 0.005; for one
    step and its threshold of 1/2 that is the same.

    Source: Guo et al. 2022 (IM-Loss, NeurIPS 35);
    yfguo91/IM-Loss-Information-Maximization-Loss-for-Spiking-Neural-Networks.

    Raises:
        ValueError: The network has no neurons.

    >>> ones = torch.ones(2, 1, 3)
    >>> im_loss([Membrane("0", 0.5 * ones, 0 * ones, 1.0)])
    tensor(0.2500)
    """
    return _mean(membranes, lambda m: (m.h - m.threshold).mean().square())


def rmp_loss(membranes: Sequence[Membrane]) -> Tensor:
    r"""Return the regularised-membrane-potential loss: membranes are to lie near their spikes.

    :math:`\frac1L \sum_l \overline{(h_l - s_l)^2}`, with spikes 0 or 1 taken as constants: what
    firing loses by rounding. The paper lets its weight grow with the epoch.

    Source: Guo et al. 2023 (RMP-Loss), arXiv 2308.06787.

    Raises:
        ValueError: The network has no neurons.

    >>> ones = torch.ones(2, 1, 3)
    >>> rmp_loss([Membrane("0", 1.5 * ones, ones, 1.0)])
    tensor(0.2500)
    """
    return _mean(membranes, lambda m: (m.h - m.spikes.detach()).square().mean())


@numbers_checked
@dataclass(frozen=True)
class MPDLoss:
    r"""Membrane-potential-distribution loss: three shifts away from the threshold are penalised.

    With mean m and deviation d of a channel's membranes less the threshold, and w the half width
    of the surrogate gradient, the squares of

    * degeneration :math:`[|m| - k\,d]_+`: nearly all membranes on one side of the threshold,
    * saturation :math:`[k_s d - |m| - w]_+`: most of them outside the gradient, on both sides,
    * mismatch :math:`[w - |m| - k\,d]_+`: nearly all within it, where it differs from the spike's,

    averaged over channels and layers.

    Reconstruction (Guo et al. 2022, RecDis-SNN, CVPR): its text was not at hand. It names these
    three shifts; the hinges on mean and deviation are those of Ding et al. 2019 (arXiv 1904.02823),
    who name the same three for binary networks. Uncertain are the coefficients.

    Attributes:
        width: w.
        k: Deviations that hold "nearly all" of a channel.
        k_s: Deviations that hold half of it.

    Raises:
        ValueError: The network has no neurons.

    >>> ones = torch.ones(2, 4, 3)
    >>> MPDLoss()([Membrane("0", 3.0 * ones, ones, 1.0)])  # |m| = 2, d = 0: degenerate
    tensor(4.0000)
    """

    width: Positive = 0.5
    k: Positive = 2.0
    k_s: Positive = 0.6745

    def __call__(self, membranes: Sequence[Membrane]) -> Tensor:
        """Return the loss, a scalar."""
        return _mean(membranes, self._of)

    def _of(self, membrane: Membrane) -> Tensor:
        z = membrane.h - membrane.threshold
        channels = z.transpose(0, 2).flatten(1) if z.dim() > 2 else z.T
        mean = channels.mean(1).abs()
        # The deviation of a constant channel is 0, where a square root has no derivative.
        deviation = (channels.var(1, correction=0) + 1e-12).sqrt()
        shifts = (
            mean - self.k * deviation,
            self.k_s * deviation - mean - self.width,
            self.width - mean - self.k * deviation,
        )
        return torch.stack(shifts).clamp_min(0.0).square().sum(0).mean()


MEMBRANE_LOSSES: dict[str, MembraneLoss] = {"im": im_loss, "mpd": MPDLoss(), "rmp": rmp_loss}


def _mean(membranes: Sequence[Membrane], of: Callable[[Membrane], Tensor]) -> Tensor:
    if not membranes:
        raise ValueError("a membrane loss needs a network with neurons (rheobase.neurons.Neuron)")
    return torch.stack([of(membrane) for membrane in membranes]).mean()
