"""Neurons that integrate and leak like spiking ones, but send their membrane instead of spikes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheobase.neurons.base import Tap
from rheobase.neurons.integrate_and_fire import PLIF

__all__ = ["PLIAF"]


class PLIAF(PLIF):
    r"""Parametric leaky integrate and analog fire: it puts out :math:`\max(h_t, 0)`.

    A spike only resets the membrane. The output is real, so layers behind it multiply.

    Arguments are those of `PLIF`. Source: Wu et al. 2021 (LIAF-Net), arXiv 2011.06176; with a
    learnt time constant in Li et al. 2024 (Spikeformer), arXiv 2211.10686.

    >>> import torch
    >>> PLIAF(tau=2.0)(torch.tensor([[1.0], [3.0], [1.0]])).squeeze()
    tensor([0.5000, 1.7500, 0.5000], grad_fn=<SqueezeBackward0>)
    """

    def forward(self, x: Tensor, tap: Tap | None = None) -> Any:
        """The charged membrane where it is positive; arguments as those of `Neuron`."""
        spikes, h = super().forward(x, tap="h")
        analog = h.relu().to(x.dtype)
        if tap != "v":
            return analog if tap is None else (analog, h)
        values = self.coefficients(x)
        reset = self.spec.reset_functions.value
        return analog, reset(h, spikes, *(values[name] for name in self.spec.reset_names))
