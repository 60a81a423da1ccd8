"""Lapicque's neuron, as SSTFormer uses snnTorch's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.memoryless import fire
from rheobase.stateful import Stateful
from rheobase.surrogate import ATan

__all__ = ["Lapicque"]

_SURROGATE = ATan(2.0)


class Lapicque(Stateful):
    r"""An RC circuit that first adds its current to the membrane, then relaxes towards it.

    .. math:: u_t = v_{t-1} + x_t, \quad
       h_t = (1 - r) u_t + r x_t - \theta \, \Theta(u_t - \theta), \quad
       s_t = \Theta(h_t - \theta), \qquad r = \ln(1 / \beta)

    The subtraction is of a spike that :math:`u_t` would have fired, its gradient cut; :math:`v_t`
    is :math:`h_t`, or :math:`s_t` where ``swapped``. Source: snnTorch 1.0 (``Lapicque``), as
    called by Wang et al. 2023 (SSTFormer), arXiv 2308.04369.

    Args:
        beta: decay, in (0, 1); snnTorch's, of which only the rate r is used.
        v_threshold: the membrane above which it fires.
        swapped: carry spikes from step to step as if they were membranes.

    >>> spikes, membranes = Lapicque(0.5, v_threshold=0.75)(torch.tensor([[0.5], [0.5], [0.5]]))
    >>> spikes.flatten().tolist()
    [0.0, 0.0, 0.0]
    """

    capacitance: Tensor

    def __init__(self, beta: float, *, v_threshold: Positive = 1.0, swapped: bool = False) -> None:
        super().__init__()
        if not 0.0 < beta < 1.0:
            raise ValueError(f"beta must lie between 0 and 1, got {beta}")
        # A buffer: 1 / r as official checkpoints have it.
        self.register_buffer("capacitance", torch.tensor(1.0 / math.log(1.0 / beta)))
        self.v_threshold = v_threshold
        self.swapped = swapped

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[T, N, ...]`` to spikes and membranes of the same shape."""
        rate, theta = 1.0 / self.capacitance, self.v_threshold
        v = torch.zeros_like(x[0]) if self.carried is None else self.carried
        spikes, membranes = [], []
        for x_t in x.unbind(0):
            u = v + x_t
            h = rate * x_t + (1.0 - rate) * u - theta * (u > theta).to(x.dtype)
            s = fire(h, _SURROGATE, theta, strict=True)
            v = s if self.swapped else h
            spikes.append(s)
            membranes.append(h)
        self.carry(v)
        return torch.stack(spikes), torch.stack(membranes)
