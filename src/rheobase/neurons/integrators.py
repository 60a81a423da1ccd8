"""One step of a differential equation: Euler, exponential Euler, Runge-Kutta of order 4.

An equation is given as a function from the states to a pair for each of them, ``(drive, rate)``,
where :math:`dx/dt = drive + rate\\,x`. What is linear in a state belongs into its rate: exponential
Euler solves that part exactly, the other methods see only the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["INTEGRATORS", "Equations", "State"]

State = tuple[Tensor, ...]
Equations = Callable[[State], tuple[tuple[Tensor | float, Tensor | float], ...]]
Integrator = Callable[[Equations, State, float], State]


def _slopes(equations: Equations, state: State) -> State:
    pairs = zip(state, equations(state), strict=True)
    return tuple(drive + rate * x for x, (drive, rate) in pairs)


def _moved(state: State, slopes: State, by: float) -> State:
    return tuple(x + by * k for x, k in zip(state, slopes, strict=True))


def _euler(equations: Equations, state: State, dt: float) -> State:
    return _moved(state, _slopes(equations, state), dt)


def _exponential_euler(equations: Equations, state: State, dt: float) -> State:
    pairs = zip(state, equations(state), strict=True)
    return tuple(x + (drive + rate * x) * _reach(rate, dt) for x, (drive, rate) in pairs)


def _reach(rate: Tensor | float, dt: float) -> Tensor | float:
    """The integral of ``exp(rate * t)`` from 0 to ``dt``; a tensor is nowhere 0."""
    if isinstance(rate, Tensor):
        return torch.expm1(rate * dt) / rate
    return math.expm1(rate * dt) / rate if rate else dt


def _rk4(equations: Equations, state: State, dt: float) -> State:
    k1 = _slopes(equations, state)
    k2 = _slopes(equations, _moved(state, k1, 0.5 * dt))
    k3 = _slopes(equations, _moved(state, k2, 0.5 * dt))
    k4 = _slopes(equations, _moved(state, k3, dt))
    total = tuple(a + 2.0 * b + 2.0 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    return _moved(state, total, dt / 6.0)


INTEGRATORS: dict[str, Integrator] = {
    "euler": _euler,
    "exponential_euler": _exponential_euler,
    "rk4": _rk4,
}
