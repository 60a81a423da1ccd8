"""The neuron of hybrid training, whose gradient fades with the time since its last spike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.signed import own_threshold
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = ["STDBIF"]


class STDBIF(StepNeuron):
    r"""IF of spike-timing-dependent backpropagation (STDB), for fine-tuning a converted network.

    :math:`h_t = \lambda h_{t-1} - \theta s_{t-1} + x_t`, fires where :math:`h_t/\theta - 1 > 0`.
    The derivative of a spike by :math:`h_t/\theta - 1` is :math:`\alpha e^{-\beta\,\Delta t}`,
    :math:`\Delta t` being the steps since the neuron's spike before; 0 where there was none. No
    gradient goes through the reset. The tap "v" is :math:`\lambda h_t - \theta s_t`. (The released
    network fires by the membrane of the step before: the same spikes, a step later in each layer.)
    Source: Rathi et al. 2020, ICLR, arXiv 2005.01807, and its code.

    Args:
        v_threshold: :math:`\theta`; a tensor broadcasts to one step's neurons, and stays fixed.
        leak: :math:`\lambda`, in (0, 1].
        alpha: the derivative right after a spike, above 0.
        beta: how fast it fades, not below 0.

    Raises:
        ValueError: an argument is out of its domain.

    >>> x = torch.full((4, 1), 0.7, requires_grad=True)
    >>> spikes = STDBIF(beta=0.5)(x)
    >>> spikes.flatten().tolist()
    [0.0, 1.0, 1.0, 0.0]
    >>> spikes[2].backward()  # one step after the spike before: 0.3 * exp(-0.5)
    >>> x.grad.flatten()
    tensor([0.1820, 0.1820, 0.1820, 0.0000])
    """

    states = 2
    fused = True

    def __init__(
        self,
        v_threshold: Positive | Tensor = 1.0,
        *,
        leak: float = 1.0,
        alpha: Positive = 0.3,
        beta: float = 0.01,
    ) -> None:
        super().__init__(v_threshold=1.0, v_reset=None, detach_reset=True, strict=True)
        del self.v_threshold  # a buffer does not take the place of a plain attribute
        self.v_threshold = own_threshold(v_threshold, trained=False)
        if not (0.0 < leak <= 1.0 and alpha > 0.0 and beta >= 0.0):
            raise ValueError(
                "STDB takes a leak above 0 and up to 1, alpha above 0 and beta not below 0, got "
                f"leak={leak}, alpha={alpha}, beta={beta}"
            )
        self.leak, self.alpha, self.beta = leak, alpha, beta

    def start(self, x: Tensor) -> State:
        """A membrane of 0, and no spike ever."""
        return torch.zeros_like(x), torch.full_like(x, math.inf)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire by the slope of the time since the last spike, subtract, count."""
        u, since = state
        h = u + x
        z = h / self.v_threshold - 1.0
        fired = (z > 0.0).to(h.dtype)
        slope = self.alpha * torch.exp(-self.beta * since) if self.beta else self.alpha
        s = fired + (z - z.detach()) * slope
        u = self.leak * h - fired * self.v_threshold
        return s, h, (u, torch.where(fired > 0.0, 1.0, since + 1.0))

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"leak={self.leak}, alpha={self.alpha}, beta={self.beta}"
        return f"{shown}, {super().extra_repr()}"
