"""Integer neurons: several spikes a step while training, binary virtual steps on hardware."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.surrogate import Window

__all__ = ["GIF", "ILIF", "expand"]


class _Levels(Neuron):
    """What both share: spikes are integers up to ``levels``."""

    levels: Size

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Those of the charge and reset, and the number of levels."""
        return super().coefficients(x) | {"levels": float(self.levels)}

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"levels={self.levels}, {super().extra_repr()}"


class ILIF(_Levels, LIF):
    r"""Integer LIF: fires :math:`s = \mathrm{round}(\mathrm{clip}(h/\theta, 0, D))`, soft reset.

    Rounds half to even. The gradient is 1 while :math:`0 \le h/\theta \le D`, and that through the
    reset is cut, as in the official code. `expand` turns the integers into binary steps. Another
    "ILIF" (arXiv 2505.10371) is an inhibitory neuron, not this one.
    Source: Luo et al. 2024 (SpikeYOLO), arXiv 2407.20708.

    Args:
        levels: the largest integer D.
        tau: time constant; the default makes the decay factor 0.25.
        options: ``v_threshold``, ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``levels`` is below 1.

    >>> ILIF(levels=4)(torch.tensor([[1.2], [7.0], [-3.0]])).squeeze()
    tensor([1., 4., 0.])
    """

    def __init__(self, levels: Size = 4, *, tau: float = 4.0 / 3.0, **options: Any) -> None:
        defaults: dict[str, Any] = {"detach_reset": True, "surrogate": Window(float(levels))}
        super().__init__(tau, decay_input=False, v_reset=None, **(defaults | options))
        self.levels = self.largest = levels

    @property
    def fire(self) -> str:
        """By rounding."""
        return "count"


class GIF(_Levels):
    r"""Generalised IF: many steps of an IF neuron in one, :math:`s = \lfloor h/\theta\rfloor`.

    The integer, at most ``levels``, is how often an IF neuron with soft reset would fire if the
    next ``levels - 1`` inputs were 0; what is above stays in the membrane. `expand` gives those
    binary steps. The code published with the paper works on quantised integers of salient
    channels; this is its neuron alone.
    Source: Xing et al. 2024 (SpikeLLM), arXiv 2407.04752.

    Args:
        levels: the largest integer a step, L (15 in the released code).
        options: ``v_threshold``, ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``levels`` is below 1.

    >>> GIF(levels=3)(torch.tensor([[2.5], [3.0], [0.0]])).squeeze()
    tensor([2., 3., 0.])
    """

    charge = "integrate"

    def __init__(self, levels: Size = 15, **options: Any) -> None:
        defaults: dict[str, Any] = {"detach_reset": True, "surrogate": Window(float(levels))}
        super().__init__(v_reset=None, **(defaults | options))
        self.levels = self.largest = levels

    @property
    def fire(self) -> str:
        """By rounding down."""
        return "whole"


def expand(spikes: Tensor, levels: Size) -> Tensor:
    """Integers as binary virtual steps: n becomes n ones, then zeros.

    A linear map of the sum over an integer's virtual steps is the map of the integer, so a network
    gives with them exactly what it gives with integers.

    Args:
        spikes: integers from 0 to ``levels``, ``[T, N, ...]``.
        levels: virtual steps for each step.

    Returns:
        binary spikes ``[T * levels, N, ...]``.

    Raises:
        ValueError: ``levels`` is below 1, or a value is no integer from 0 to ``levels``.

    >>> expand(torch.tensor([[2.0], [0.0]]), levels=3).squeeze()
    tensor([1., 1., 0., 0., 0., 0.])
    """
    if levels < 1:
        raise ValueError(f"expand takes levels of at least 1, got {levels}")
    if bool(((spikes < 0) | (spikes > levels) | (spikes != spikes.round())).any()):
        raise ValueError(f"expand takes integers from 0 to levels={levels}, got other values")
    virtual = torch.arange(levels, device=spikes.device, dtype=spikes.dtype)
    virtual = virtual.view(-1, *[1] * (spikes.dim() - 1))
    return (spikes.unsqueeze(1) > virtual).to(spikes.dtype).flatten(0, 1)
