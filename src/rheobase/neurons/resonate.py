"""The resonate-and-fire neuron: a damped oscillation that fires at its crest."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["RAF"]


class RAF(StepNeuron):
    r"""Resonate-and-fire: the state :math:`z = u + iv` turns and decays, the input kicks u.

    :math:`z \leftarrow e^{(b + i\omega)\Delta t} z + x`; fires where :math:`v \ge \theta`, and only
    v is reset. Source: Izhikevich 2001, *Resonate-and-fire neurons*, Neural Networks 14.

    Args:
        b: damping, below 0, per unit of time.
        omega: angular frequency, above 0, per unit of time.
        dt: time of one step.
        options: the arguments of `Neuron`.

    Raises:
        ValueError: ``b`` is not below 0, or ``omega`` or ``dt`` not above 0.

    >>> import torch
    >>> RAF()(torch.tensor([[2.0], [0.0], [0.0], [0.0]])).squeeze()
    tensor([0., 1., 0., 0.])
    """

    states = 2
    fused = True

    def __init__(
        self, b: float = -0.2, omega: Positive = 1.0, dt: Positive = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        if not (b < 0.0 and omega > 0.0 and dt > 0.0):
            raise ValueError(
                f"RAF takes b below 0, omega and dt above 0; got b={b}, omega={omega}, dt={dt}"
            )
        self.b, self.omega, self.dt = b, omega, dt

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Turn, kick, fire, reset."""
        v, u = state
        decay, angle = math.exp(self.b * self.dt), self.omega * self.dt
        cos, sin = decay * math.cos(angle), decay * math.sin(angle)
        h = u * sin + v * cos
        u = u * cos - v * sin + x
        s = self.spike(h - self.v_threshold)
        return s, h, (self.reset_membrane(h, s, self.v_threshold), u)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"b={self.b}, omega={self.omega}, dt={self.dt}, {super().extra_repr()}"
