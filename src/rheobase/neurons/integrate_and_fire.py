"""Integrate-and-fire neurons: IF, LIF, and PLIF with its learnable time constant."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.parameters import per_channel, positive

__all__ = ["IF", "LIF", "PLIF"]


class IF(Neuron):
    r"""Integrate-and-fire: :math:`h_t = u_{t-1} + x_t`, no leak.

    Arguments are those of `Neuron`. Source: S1 eq. 2; Cao et al. 2015.

    >>> IF()(torch.full((4, 1), 0.5)).squeeze()
    tensor([0., 1., 0., 1.])
    """

    charge = "integrate"


class LIF(Neuron):
    r"""Leaky integrate-and-fire with time constant ``tau``, in steps.

    With ``decay_input`` (the default) the membrane relaxes towards its input,
    :math:`h_t = u_{t-1} + (x_t - (u_{t-1} - v_{reset}))/\tau`, so a constant input must exceed
    ``v_threshold`` to make it ever fire. Without it the input is added whole,
    :math:`h_t = (1 - 1/\tau)\,u_{t-1} + v_{reset}/\tau + x_t`; papers that give a decay factor
    :math:`\lambda` mean this one, with :math:`\tau = 1/(1-\lambda)`.

    Args:
        tau: time constant, at least 1.
        decay_input: whether the input is divided by tau too.
        options: the arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is below 1.

    >>> LIF(tau=2.0)(torch.full((4, 1), 1.5)).squeeze()
    tensor([0., 1., 0., 1.])
    """

    def __init__(self, tau: float = 2.0, *, decay_input: bool = True, **options: Any) -> None:
        super().__init__(**options)
        _check_tau(tau)
        self.tau = tau
        self.decay_input = decay_input
        # Dividing by a power of two is exactly multiplying by its inverse, which is cheaper.
        exact = math.frexp(tau)[0] == 0.5
        self.charge = ("blend" if exact else "relax") if decay_input else "leak"

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """``tau`` (or its inverse) and the resting membrane, or the decay and what leaks back."""
        if self.charge == "relax":
            return {"tau": self.tau, "rest": self.rest}
        if self.charge == "blend":
            return {"rate": 1.0 / self.tau, "rest": self.rest}
        return {"decay": 1.0 - 1.0 / self.tau, "bias": self.rest / self.tau}

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"tau={self.tau}, decay_input={self.decay_input}, {super().extra_repr()}"


class PLIF(Neuron):
    r"""Parametric LIF: the time constant is learnt, :math:`1/\tau = \sigma(w)`.

    One ``w`` for the layer (as in the paper) or one for every channel.
    Source: Fang et al. 2021, arXiv 2007.05785, eq. 7 to 10.

    Args:
        tau: initial time constant, above 1.
        decay_input: whether the input is multiplied by 1/tau too.
        channels: number of channels (axis 2 of ``[T, N, C, ...]``) for a ``w`` each.
        options: the arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is not above 1, or the rate as learnt not above 0 (or not a number); the
            input has another number of channels.

    >>> round(PLIF(tau=4.0).tau.item(), 5)
    4.0
    """

    def __init__(
        self,
        tau: float = 2.0,
        *,
        decay_input: bool = True,
        channels: Size | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 1.0 < tau < math.inf:
            raise ValueError(f"PLIF learns 1/tau = sigmoid(w): tau must be above 1, got {tau}")
        w = -math.log(tau - 1.0)
        self.w = nn.Parameter(torch.tensor(w) if channels is None else torch.full((channels,), w))
        self.decay_input = decay_input
        self.charge = "blend" if decay_input else "leak"

    @property
    def tau(self) -> Tensor:
        """The time constant as it stands, of the layer or of each channel."""
        return 1.0 / self.w.sigmoid()

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The rate 1/tau (or the decay 1 - 1/tau) as a tensor that broadcasts to ``x``."""
        rate = per_channel(positive(self.w.sigmoid(), "PLIF", "rate 1/tau"), x, "PLIF")
        if self.decay_input:
            return {"rate": rate, "rest": self.rest}
        return {"decay": 1.0 - rate, "bias": self.rest * rate}

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shape = "layer" if self.w.dim() == 0 else f"{self.w.numel()} channels"
        return f"w per {shape}, decay_input={self.decay_input}, {super().extra_repr()}"


def _check_tau(tau: float) -> None:
    if not tau >= 1.0:
        raise ValueError(
            f"tau must be at least 1 (a time constant in steps), got {tau}; "
            "a decay factor d is tau = 1/(1-d)"
        )
