"""A pole on a cart, to be balanced by pushes: a task for reinforcement learning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CartPole"]


@dataclass(frozen=True)
class CartPole:
    r"""Many carts at once, without friction, in Euler steps.

    A state ``[N, 4]`` is position (m), velocity (m/s), angle (rad, 0 upright) and angular velocity
    (rad/s). With the force F, :math:`a = (F + m l \dot\theta^2 \sin\theta) / M`,

    :math:`\ddot\theta = \frac{g \sin\theta - a \cos\theta}{l (4/3 - m \cos^2\theta / M)}`,
    :math:`\ddot x = a - m l\,\ddot\theta \cos\theta / M`,

    M being the mass of cart and pole together, l half the pole's length.
    Source: Barto, Sutton & Anderson 1983, IEEE Trans. SMC 13(5), appendix, without its friction.

    Attributes:
        gravity: m/s^2.
        cart: its mass, kg.
        pole: its mass, kg.
        half_length: of the pole, m.
        force: of a push, N.
        dt: a step, s.
        track: a cart further from the middle has failed, m.
        lean: a pole further from upright has fallen, rad.

    >>> carts = CartPole()
    >>> carts.step(torch.zeros(1, 4), torch.tensor([1]))  # pushed to the right, the pole leans left
    tensor([[ 0.0000,  0.1951,  0.0000, -0.2927]])
    """

    gravity: float = 9.8
    cart: float = 1.0
    pole: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    dt: float = 0.02
    track: float = 2.4
    lean: float = math.radians(12.0)

    def start(self, carts: int, generator: torch.Generator | None = None) -> Tensor:
        """States near rest, ``[carts, 4]``, each number within 0.05 of 0."""
        return 0.1 * torch.rand(carts, 4, generator=generator) - 0.05

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The states a step after pushes to the left (0) or right (1), ``[N]``."""
        _, speed, angle, turn = state.unbind(1)
        sine, cosine, mass = angle.sin(), angle.cos(), self.cart + self.pole
        lever = self.pole * self.half_length
        push = self.force * (2.0 * action.to(state.dtype) - 1.0)
        a = (push + lever * turn.square() * sine) / mass
        moment = self.half_length * (4.0 / 3.0 - self.pole * cosine.square() / mass)
        turning = (self.gravity * sine - a * cosine) / moment
        rates = (speed, a - lever * turning * cosine / mass, turn, turning)
        return state + self.dt * torch.stack(rates, 1)

    def fallen(self, state: Tensor) -> Tensor:
        """Which poles have fallen, or carts left the track, ``[N]``."""
        return (state[:, 0].abs() > self.track) | (state[:, 2].abs() > self.lean)
