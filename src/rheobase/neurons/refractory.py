"""LIF with a refractory period."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.integrate_and_fire import LIF
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["RefractoryLIF"]


class RefractoryLIF(StepNeuron, LIF):
    r"""LIF that after a spike takes no input and does not leak for ``refractory`` steps.

    In a refractory step the membrane stays where the reset has put it, the neuron does not fire,
    and no gradient passes from its spike or its input. Runs step by step.
    Source: Gerstner et al. 2014, *Neuronal Dynamics*, section 1.3.1.

    Args:
        tau: time constant, at least 1.
        refractory: steps without input after a spike, 0 or more.
        options: the arguments of `LIF`.

    Raises:
        ValueError: ``tau`` is below 1, or ``refractory`` negative.

    >>> RefractoryLIF(refractory=2)(torch.full((7, 1), 3.0)).flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    states = 2

    def __init__(self, tau: float = 2.0, *, refractory: int = 1, **options: Any) -> None:
        super().__init__(tau, **options)
        if refractory < 0:
            raise ValueError(f"refractory is a number of steps, 0 or more; got {refractory}")
        self.refractory = refractory

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge and fire, but for what is refractory, which counts its steps down."""
        u, left = state
        ready = left <= 0.0
        rate = 1.0 / self.tau
        gain = rate if self.decay_input else 1.0
        charged = (1.0 - rate) * u + gain * x + self.rest * rate
        h = torch.where(ready, charged, u)
        s = self.spike(h - self.v_threshold) * ready
        left = torch.where(s > 0.0, float(self.refractory), (left - 1.0).clamp_min(0.0))
        return s, h, (self.reset_membrane(h, s, self.v_threshold), left)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"refractory={self.refractory}, {super().extra_repr()}"
