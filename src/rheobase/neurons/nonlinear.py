"""Neurons that start their own spike, in units of the network: QIF and EIF.

Dimensionless, with time constants in steps, to be used like LIF in trained networks. Models in
millivolts and milliseconds are in `rheobase.neurons.biophysical`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.base import Neuron

__all__ = ["EIF", "QIF"]


class _Nonlinear(Neuron):
    def __init__(self, tau: float, *, v_rest: float, v_reset: float, **options: Any) -> None:
        super().__init__(v_reset=v_reset, **options)
        if not tau >= 1.0:
            raise ValueError(f"tau must be at least 1 (a time constant in steps), got {tau}")
        self.tau = tau
        self.v_rest = v_rest


class QIF(_Nonlinear):
    r"""Quadratic integrate-and-fire: :math:`h = u + (x + a(u - u_{rest})(u - u_c))/\tau`.

    Hard reset only: above :math:`u_c` the membrane runs away by itself. It starts at ``v_reset``.
    Source: Gerstner et al. 2014, *Neuronal Dynamics*, sec. 5.3, in Euler steps.

    Args:
        tau: time constant in steps, at least 1.
        v_c: critical membrane, from which on it rises without input.
        a0: curvature a, above 0.
        v_rest: resting membrane.
        v_reset: the membrane after a spike.
        options: the other arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is below 1, or ``a0`` not above 0.

    >>> import torch
    >>> QIF()(torch.full((4, 1), 1.5)).squeeze()
    tensor([0., 1., 0., 1.])
    """

    charge = "quadratic"

    def __init__(
        self,
        tau: float = 2.0,
        *,
        v_c: float = 0.8,
        a0: Positive = 1.0,
        v_rest: float = 0.0,
        v_reset: float = -0.1,
        **options: Any,
    ) -> None:
        super().__init__(tau, v_rest=v_rest, v_reset=v_reset, **options)
        self.v_c = v_c
        self.a0 = a0

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The parabola."""
        return {
            "tau": self.tau,
            "curvature": self.a0,
            "rest": self.v_rest,
            "critical": self.v_c,
        }

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, v_c={self.v_c}, a0={self.a0}, v_rest={self.v_rest}"
        return f"{shown}, {super().extra_repr()}"


class EIF(_Nonlinear):
    r"""Exponential integrate-and-fire.

    :math:`h = u + (x + u_{rest} - u + \Delta_T\,e^{(u - \theta_{rh})/\Delta_T})/\tau`. Hard reset
    only; it starts at ``v_reset``.
    Source: Fourcaud-Trocmé et al. 2003, in Euler steps.

    Args:
        tau: time constant in steps, at least 1.
        delta_T: sharpness of the upswing, above 0.
        theta_rh: rheobase threshold, where the upswing begins.
        v_rest: resting membrane.
        v_reset: the membrane after a spike.
        options: the other arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is below 1, or ``delta_T`` not above 0.

    >>> import torch
    >>> EIF()(torch.full((4, 1), 1.0)).squeeze()
    tensor([0., 1., 0., 1.])
    """

    charge = "exponential"

    def __init__(
        self,
        tau: float = 2.0,
        *,
        delta_T: Positive = 1.0,
        theta_rh: float = 0.8,
        v_rest: float = 0.0,
        v_reset: float = -0.1,
        **options: Any,
    ) -> None:
        super().__init__(tau, v_rest=v_rest, v_reset=v_reset, **options)
        self.delta_T = delta_T
        self.theta_rh = theta_rh

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The exponential."""
        return {
            "tau": self.tau,
            "sharpness": self.delta_T,
            "rheobase": self.theta_rh,
            "rest": self.v_rest,
        }

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, delta_T={self.delta_T}, theta_rh={self.theta_rh}"
        return f"{shown}, v_rest={self.v_rest}, {super().extra_repr()}"
