"""Values that change in the course of training: schedules, and telling them how far it is."""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol, runtime_checkable

from torch import nn

from rheobase.surrogate.base import Schedule

__all__ = ["Scheduled", "im_loss_schedule", "linear_schedule", "set_progress"]


@runtime_checkable
class Scheduled(Protocol):
    """A module some of whose values follow schedules: surrogates, `rheobase.neurons.MaskedPSN`."""

    schedules: dict[str, Schedule]

    def assign(self, name: str, value: float) -> None:
        """Set a value by its name."""


def set_progress(module: nn.Module, fraction: float) -> None:
    """Set everything in ``module`` that follows a schedule for a point of training.

    Args:
        module: a network (or a single surrogate).
        fraction: how much of training is done, 0 to 1; for epoch i of N, ``i / N``.

    Raises:
        ValueError: ``fraction`` is outside 0 to 1, or a schedule gives a value out of range.

    >>> from rheobase.surrogate import EvolvingTanh
    >>> surrogate = EvolvingTanh(k=lambda fraction: 1.0 + 9.0 * fraction)
    >>> set_progress(surrogate, 0.5)
    >>> surrogate
    EvolvingTanh(k=5.5)
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is how much of training is done, 0 to 1; got {fraction}")
    for child in module.modules():
        if isinstance(child, Scheduled):
            for name, schedule in child.schedules.items():
                child.assign(name, schedule(fraction))


def linear_schedule(start: float, end: float) -> Schedule:
    """From ``start`` to ``end`` at a constant rate.

    >>> linear_schedule(0.0, 2.0)(0.25)
    0.5
    """
    return partial(_linear, start=start, end=end)


def _linear(fraction: float, start: float, end: float) -> float:
    return start + (end - start) * fraction


def im_loss_schedule(k_min: float, k_max: float) -> Schedule:
    r"""The schedule of IM-Loss: slow at first, from ``k_min`` to ``k_max``.

    :math:`K(f) = \frac{(10^f - 1)\,K_{max} + (10 - 10^f)\,K_{min}}{9}` at fraction f = i/N.
    Source: Guo et al. 2022, IM-Loss.

    >>> im_loss_schedule(1.0, 10.0)(1.0)
    10.0
    """
    return partial(_im_loss, k_min=k_min, k_max=k_max)


def _im_loss(fraction: float, k_min: float, k_max: float) -> float:
    power = math.pow(10.0, fraction)
    return ((power - 1.0) * k_max + (10.0 - power) * k_min) / 9.0
