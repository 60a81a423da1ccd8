"""IF that sends off what is left in its membrane as a burst of half-sized spikes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["BurstIF", "FedBackBurstIF"]


class BurstIF(StepNeuron):
    r"""IF with bursts, and with negative spikes that take back what was sent too early.

    A spike has the size of what it carries. First one of :math:`\theta` where :math:`h \ge \theta`,
    and (signed) one of :math:`-\theta` where :math:`h \le -\theta` while the sum of spikes so far
    is above 0. Then up to ``burst`` spikes of :math:`\theta/2`, as many as the rest of the membrane
    holds; signed ones never take the sum below 0. All are subtracted.
    Source: Jiang et al. 2024 (STA), ICLR, and its code for the order.

    Args:
        v_threshold: the size of a spike; a tensor broadcasts to a step ``[N, ...]``.
        burst: the most spikes of half the size after it; 0 for none.
        signed: whether there are negative spikes.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``v_threshold`` is not above 0, or ``burst`` below 0.

    >>> BurstIF(burst=2)(torch.tensor([[2.75], [0.0]])).squeeze()
    tensor([2.0000, 0.5000])
    """

    largest = None
    states = 2
    fused = True
    margin = 1e-5
    """Half a threshold has to be passed by this much to count as held, as in the released code."""

    def __init__(
        self,
        v_threshold: Positive | Tensor = 1.0,
        *,
        burst: int = 2,
        signed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(v_reset=None, **options)
        if not torch.as_tensor(v_threshold).gt(0.0).all():
            raise ValueError(f"v_threshold must be above 0, got {v_threshold}")
        if burst < 0:
            raise ValueError(f"burst is a number of spikes, 0 or more, got {burst}")
        self.v_threshold = v_threshold
        self.burst = burst
        self.signed = signed

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire, empty the membrane by half spikes, subtract both."""
        v, sent = state
        h = v + x
        s = self.spike(h - self.v_threshold) * self.v_threshold
        if self.signed:
            s = s - self.spike(-h - self.v_threshold) * self.v_threshold * (sent > 0.0)
        left = self.reset_membrane(h, s, 1.0)
        rest = torch.maximum(-(sent + s.detach()), left) if self.signed else left
        half = 0.5 * self.v_threshold
        held = self._held(rest, half)
        if self.signed:
            held = held - self._held(-rest, half)
        s = s + held * half
        return s, h, (self.reset_membrane(h, s, 1.0), sent + s.detach())

    def _held(self, rest: Tensor, half: float | Tensor) -> Tensor:
        """How many halves the rest holds, up to ``burst``."""
        held = torch.zeros_like(rest)
        for number in range(1, self.burst + 1):
            held = held + self.spike(rest - number * (half + self.margin))
        return held

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"burst={self.burst}, signed={self.signed}, {super().extra_repr()}"


class FedBackBurstIF(BurstIF):
    r"""`BurstIF` charged with what it still owes: all that has come in, less all that was sent.

    .. math:: h_t = v_{t-1} + \sum_{s \le t} x_s - \sum_{s < t} o_s

    Source: the encoder behind STA's softmax in its released code.

    Args: as of `BurstIF`.

    >>> FedBackBurstIF(burst=0, signed=True)(torch.full((3, 1), 0.6)).squeeze()
    tensor([0., 1., 1.])
    """

    states = 3

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `BurstIF`, on what is owed."""
        v, sent, came = state
        came = came + x
        s, h, left = super().step(came - sent, (v, sent))
        return s, h, (*left, came)
