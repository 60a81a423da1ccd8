"""IF neurons that run twice: what is left after the first run corrects the second."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase._numbers import Positive, Size
from rheobase.neurons.base import Neuron, Tap
from rheobase.neurons.signed import own_threshold
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["MaskedRateIF", "OffsetRateIF"]


class MaskedRateIF(StepNeuron):
    r"""IF silenced where its membrane was not above 0 after the first ``probe`` steps (SRP).

    Starts at :math:`\theta/2`, soft reset. After ``probe`` steps the membrane starts anew, and
    neurons with :math:`v \le 10^{-3}\theta` then are silent from there on; what the readout takes
    comes after these steps.
    Source: Hao et al. 2023a (SRP), arXiv 2302.02091, and its code for the tolerance.

    Args:
        v_threshold: a number, or a tensor that broadcasts to one step's neurons.
        probe: steps of the first run.

    Raises:
        ValueError: ``v_threshold`` is not above 0, or ``probe`` below 1.

    >>> MaskedRateIF(probe=2)(torch.tensor([[0.6], [-1.0], [0.6], [0.6]])).flatten().tolist()
    [1.0, 0.0, 0.0, 0.0]
    """

    states = 3
    tolerance = 1e-3

    def __init__(self, v_threshold: Positive | Tensor = 1.0, *, probe: Size = 4) -> None:
        super().__init__(v_threshold=1.0, v_reset=None)
        self.v_threshold = own_threshold(v_threshold)
        self.probe = probe

    def start(self, x: Tensor) -> State:
        """Half a threshold, not silent, no step done."""
        return self._fresh(x), torch.ones_like(x), torch.zeros_like(x)

    def _fresh(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + 0.5 * self.v_threshold

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire unless silent, reset; after the probe, start anew."""
        u, passes, done = state
        h = u + x
        s = self.spike(h - self.v_threshold)
        u = self.reset_membrane(h, s, self.v_threshold)
        s = s * passes
        done = done + 1.0
        ends = done == self.probe
        passes = torch.where(ends, (u > self.tolerance * self.v_threshold).to(u.dtype), passes)
        return s, h, (torch.where(ends, self._fresh(x), u), passes, done)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"probe={self.probe}"


class OffsetRateIF(Neuron):
    r"""IF whose first membrane is shifted by one spike where a first run was one spike off (COS).

    Runs the first ``probe`` steps in thresholds from 1/2. Where :math:`v < 0` at their end though
    it fired, the start is lowered by the least that undoes the weakest spike,
    :math:`\max(1, \min_{fired} v_{pre} - 0.999)`; where :math:`v \ge 1` it is raised by the least
    that makes one more, :math:`\max(1, 1.001 - \max_{silent} v)`. Then it runs all T steps. It
    needs the whole sequence, so it neither streams nor runs step by step.
    Source: Hao et al. 2023b (COS), ICLR, one iteration as in the released code.

    Args:
        v_threshold: a number, or a tensor that broadcasts to one step's neurons.
        probe: steps of the first run.

    Raises:
        ValueError: ``v_threshold`` is not above 0, or ``probe`` below 1; the sequence is shorter.

    >>> OffsetRateIF(probe=3)(torch.tensor([[0.7], [-0.9], [0.0], [0.0]])).flatten().tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    scanned = False
    causal = False

    def __init__(self, v_threshold: Positive | Tensor = 1.0, *, probe: Size = 4) -> None:
        super().__init__(v_threshold=1.0, v_reset=None)
        self.v_threshold = own_threshold(v_threshold)
        self.probe = probe

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Both runs; ``tap`` shows the second."""
        if x.shape[0] < self.probe:
            raise ValueError(
                f"the offset is found from the first {self.probe} steps, but only {x.shape[0]} "
                "were given; run more steps and read out the first of them"
            )
        current = x / self.v_threshold
        half = torch.full_like(current[0], 0.5)
        spikes, _, charged, after = _run(current[: self.probe], half)
        fired = spikes > 0.0
        weakest = torch.where(fired, charged, torch.inf).amin(0)
        nearest = torch.where(fired, -torch.inf, after).amax(0)
        left = after[-1]
        lowered = (left < 0.0) & fired.any(0)
        first = torch.where(lowered, half - (weakest - 0.999).clamp(min=1.0), half)
        first = torch.where(left >= 1.0, half + (1.001 - nearest).clamp(min=1.0), first)
        spikes, last, charged, after = _run(current, first)
        return spikes, {"h": charged, "v": after, None: None}[tap], last

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"probe={self.probe}"


def _run(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, last membrane, and the membranes before firing and after reset; threshold 1."""
    spikes, charged, after = [], [], []
    for x_t in x.unbind(0):
        h = u + x_t
        s = (h >= 1.0).to(h.dtype)
        u = h - s
        spikes.append(s)
        charged.append(h)
        after.append(u)
    return torch.stack(spikes), u, torch.stack(charged), torch.stack(after)
