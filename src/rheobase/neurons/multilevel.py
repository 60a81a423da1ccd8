"""Neurons of converted transformers: the multi-threshold neuron of ECMT and ST-BIF."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase._numbers import Positive, Size
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["STBIF", "MultiThreshold"]


class MultiThreshold(StepNeuron):
    r"""IF with thresholds :math:`\lambda\,2^i` on both sides: the largest reached one fires.

    A spike has the size of its threshold, :math:`\lambda_p 2^i` or :math:`-\lambda_n 2^i`
    (i < levels), and is subtracted. Level i fires where :math:`h \ge \lambda 2^i - \lambda/2`, the
    offset being half the smallest threshold for all, as in the released code (the paper's text
    calls the largest threshold the first). One spike a step. Every level has its surrogate.
    Source: Huang et al. 2024 (ECMT), arXiv 2502.21193.

    Args:
        v_threshold: the smallest positive threshold.
        v_negative: the smallest negative threshold, as a positive number; default the same.
        levels: thresholds on each side.
        base: from one threshold to the next.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: a threshold is not above 0, ``base`` not above 1, or ``levels`` below 1.

    >>> MultiThreshold(levels=3)(torch.tensor([[5.0], [0.0], [-3.0]])).squeeze()
    tensor([ 4.,  1., -2.])
    """

    largest = None
    fused = True

    def __init__(
        self,
        v_threshold: Positive = 1.0,
        *,
        v_negative: Positive | None = None,
        levels: Size = 8,
        base: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=None, **options)
        self.v_negative = v_threshold if v_negative is None else v_negative
        if levels < 1 or not base > 1.0:
            raise ValueError(f"levels must be at least 1 and base above 1, got {levels}, {base}")
        self.levels = levels
        self.base = base

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire the largest threshold of either side, subtract it."""
        h = state[0] + x
        s = self._fired(h, float(self.v_threshold)) - self._fired(-h, self.v_negative)
        return s, h, (self.reset_membrane(h, s, 1.0),)

    def _fired(self, h: Tensor, smallest: float) -> Tensor:
        """The largest threshold that ``h`` reaches: a sum of the distances between them."""
        fired = torch.zeros_like(h)
        below = 0.0
        for i in range(self.levels):
            level = smallest * self.base**i
            fired = fired + self.spike(h - level + 0.5 * smallest) * (level - below)
            below = level
        return fired

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"v_negative={self.v_negative}, levels={self.levels}, base={self.base}"
        return f"{shown}, {super().extra_repr()}"


class STBIF(StepNeuron):
    r"""Bipolar IF with a spike tracer: after enough steps, the sum of spikes is a quantised ReLU.

    In thresholds: the membrane starts at 1/2; fires 1 where :math:`q \ge 1` if the sum of spikes
    so far is below ``highest``, -1 where :math:`q < 0` if it is above ``lowest``; soft reset.
    Source: You et al. 2024 (SpikeZIP-TF), arXiv 2406.03470.

    Args:
        v_threshold: the step of the quantiser.
        lowest: smallest sum (0 behind a ReLU; ``-levels / 2`` for a symmetric quantiser).
        highest: largest sum.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``v_threshold`` is not above 0, or not ``lowest <= 0 < highest``.

    >>> STBIF()(torch.tensor([[2.2], [-1.0], [0.0], [0.0]])).squeeze()
    tensor([1., 0., 0., 0.])
    """

    largest = None
    states = 2
    fused = True

    def __init__(
        self,
        v_threshold: Positive = 1.0,
        *,
        lowest: int = 0,
        highest: int = 15,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=None, **options)
        if not lowest <= 0 < highest:
            raise ValueError(f"STBIF takes lowest <= 0 < highest, got {lowest} and {highest}")
        self.lowest = lowest
        self.highest = highest

    def start(self, x: Tensor) -> State:
        """Half a threshold, and no spike yet."""
        return torch.full_like(x, 0.5), torch.zeros_like(x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire on both sides while the tracer allows it, reset, trace."""
        q, traced = state
        h = q + x / self.v_threshold
        up = self.spike(h - 1.0) * (traced < self.highest)
        down = (1.0 - self.spike(h)) * (traced > self.lowest)
        s = up - down
        return s, h, (self.reset_membrane(h, s, 1.0), traced + s.detach())

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"lowest={self.lowest}, highest={self.highest}, {super().extra_repr()}"
