"""Neurons that integrate and leak like spiking ones, but send their membrane instead of spikes."""

from __future__ import annotations

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

    largest = None

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The charged membrane where it is positive, see `Neuron.run`."""
        spikes, h, last = super().run(x, carried, "h")
        assert h is not None
        analog = h.relu().to(x.dtype)
        if tap != "v":
            return analog, h if tap == "h" else None, last
        values = self.coefficients(x)
        reset = self.spec.reset_functions.value
        return analog, reset(h, spikes, *(values[name] for name in self.spec.reset_names)), last
