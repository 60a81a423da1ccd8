"""Neurons with a second state that follows their spikes: CLIF, ALIF and the adaptive QIF."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.stepwise import State, StepNeuron
from rheobase.surrogate import Rectangular

__all__ = ["ALIF", "CLIF", "AdaptiveQIF"]


class CLIF(StepNeuron):
    r"""Complementary LIF: a second membrane remembers spikes and deepens the soft reset.

    .. math::
        h = (1 - 1/\tau)\,u + x, \quad s = [h \ge \theta], \quad
        m \leftarrow m\,\sigma(h/\tau) + s, \quad u = h - s\,(\theta + \sigma(m))

    Source: Huang et al. 2024, arXiv 2402.04663. The released training script uses this
    form; a second class in the same file (``CLIFSpike``) overwrites m by :math:`\sigma(m)` at every
    step, which gives other spikes and gradients: ``memory="squashed"``.

    Args:
        tau: time constant, above 1.
        v_threshold: the membrane at which it fires.
        memory: what is carried as m: "plain" (paper) or "squashed".
        options: ``detach_reset``, ``strict`` and ``surrogate`` of `Neuron`; the surrogate's default
            is `Rectangular(1.0)`.

    Raises:
        ValueError: ``tau`` is not above 1, or ``memory`` unknown.

    >>> CLIF()(torch.full((6, 1), 0.9)).squeeze()
    tensor([0., 1., 0., 1., 0., 1.])
    """

    states = 2
    fused = True

    def __init__(
        self,
        tau: float = 2.0,
        *,
        v_threshold: Positive = 1.0,
        memory: Literal["plain", "squashed"] = "plain",
        **options: Any,
    ) -> None:
        options.setdefault("surrogate", Rectangular())
        super().__init__(v_threshold=v_threshold, v_reset=None, **options)
        if not tau > 1.0:
            raise ValueError(f"tau must be above 1 (a time constant in steps), got {tau}")
        if memory not in ("plain", "squashed"):
            raise ValueError(f"memory must be 'plain' or 'squashed', got {memory!r}")
        self.tau = tau
        self.memory = memory

    @property
    def leak_factor(self) -> float:
        """See `Neuron`."""
        return 1.0 - 1.0 / self.tau

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire, remember, reset."""
        u, m = state
        h = self.leak_factor * u + x
        s = self.spike(h - self.v_threshold)
        m = m * torch.sigmoid(h / self.tau) + s
        deeper = torch.sigmoid(m)
        u = self.reset_membrane(h, s, self.v_threshold + deeper)
        return s, h, (u, deeper if self.memory == "squashed" else m)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"tau={self.tau}, memory={self.memory!r}, {super().extra_repr()}"


class ALIF(StepNeuron):
    r"""Adaptive LIF of LSNNs: every spike raises the threshold, which then falls back.

    .. math::
        h = \alpha u + x, \quad s = [h \ge \theta + \beta a], \quad
        u = h - s\theta, \quad a \leftarrow \rho a + s

    with :math:`\alpha = e^{-1/\tau}`, :math:`\rho = e^{-1/\tau_a}`. The spike sees the adaptation
    of the steps before. With ``v_reset`` the reset is hard instead.
    Source: Bellec et al. 2020 (e-prop), Nature Communications 11:3625; without
    refractory period. (LSNNs of 2018 weigh x by :math:`1-\alpha` and s by :math:`1-\rho`: scale the
    weights and beta.)

    Args:
        tau: membrane time constant in steps.
        tau_adaptation: time constant of the adaptation in steps.
        beta: how much one spike raises the threshold.
        v_threshold: before any spike.
        v_reset: as in `Neuron`, but None (soft) by default.
        options: the other arguments of `Neuron`.

    Raises:
        ValueError: a time constant is not above 0, or beta is negative.

    >>> ALIF(beta=2.0)(torch.full((6, 1), 0.8)).squeeze()
    tensor([0., 1., 0., 0., 0., 1.])
    """

    states = 2
    fused = True

    def __init__(
        self,
        tau: Positive = 20.0,
        *,
        tau_adaptation: Positive = 200.0,
        beta: float = 0.17,
        v_threshold: Positive = 1.0,
        v_reset: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, **options)
        if not beta >= 0.0:
            raise ValueError(f"beta must not be negative, got {beta}")
        self.tau = tau
        self.tau_adaptation = tau_adaptation
        self.beta = beta

    @property
    def leak_factor(self) -> float:
        """See `Neuron`; what the adaptation does to the threshold is no part of it."""
        return math.exp(-1.0 / self.tau)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire at the raised threshold, reset, adapt."""
        u, a = state
        h = self.leak_factor * u + x
        s = self.spike(h - (self.v_threshold + self.beta * a))
        a = math.exp(-1.0 / self.tau_adaptation) * a + s
        return s, h, (self.reset_membrane(h, s, self.v_threshold), a)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, tau_adaptation={self.tau_adaptation}, beta={self.beta}"
        return f"{shown}, {super().extra_repr()}"


class AdaptiveQIF(StepNeuron):
    r"""Quadratic integrate-and-fire with an adaptation current; dimensionless, tau in steps.

    .. math::
        h = u + (x + a_0(u - u_{rest})(u - u_c) - w)/\tau, \quad
        w \leftarrow w + (a(h - u_{rest}) - w)/\tau_w + b\,s

    What SpikingJelly calls ``IzhikevichNode``; the model in millivolts is
    `rheobase.neurons.Izhikevich`. The adaptation follows the charged membrane, before the reset;
    ``detach_reset`` leaves the gradient through ``b s``.
    Source: Izhikevich 2003, rescaled, in Euler steps.

    Args:
        tau: time constant in steps, at least 1.
        v_c: critical membrane.
        a0: curvature.
        v_rest: resting membrane.
        tau_w: time constant of the adaptation, in steps.
        a: how much the adaptation follows the membrane.
        b: how much a spike adds to it.
        w_rest: the adaptation before the first step.
        options: the arguments of `Neuron`.

    Raises:
        ValueError: a time constant is below 1, or ``a0`` not above 0.

    >>> AdaptiveQIF(b=4.0)(torch.full((6, 1), 3.0)).squeeze()
    tensor([1., 0., 0., 1., 0., 0.])
    """

    states = 2
    fused = True

    def __init__(
        self,
        tau: float = 2.0,
        *,
        v_c: float = 0.8,
        a0: Positive = 1.0,
        v_rest: float = -0.1,
        tau_w: float = 2.0,
        a: float = 0.0,
        b: float = 0.0,
        w_rest: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not (tau >= 1.0 and tau_w >= 1.0):
            raise ValueError(
                f"time constants are in steps, at least 1; got tau={tau}, tau_w={tau_w}"
            )
        self.tau, self.v_c, self.a0, self.v_rest = tau, v_c, a0, v_rest
        self.tau_w, self.a, self.b, self.w_rest = tau_w, a, b, w_rest

    def start(self, x: Tensor) -> State:
        """The membrane at ``v_reset``, the adaptation at ``w_rest``."""
        return torch.full_like(x, self.rest), torch.full_like(x, self.w_rest)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire, adapt, reset."""
        u, w = state
        h = u + (x + self.a0 * (u - self.v_rest) * (u - self.v_c) - w) / self.tau
        s = self.spike(h - self.v_threshold)
        w = w + (self.a * (h - self.v_rest) - w) / self.tau_w + self.b * s
        return s, h, (self.reset_membrane(h, s, self.v_threshold), w)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, v_c={self.v_c}, a0={self.a0}, v_rest={self.v_rest}, "
        shown += f"tau_w={self.tau_w}, a={self.a}, b={self.b}"
        return f"{shown}, {super().extra_repr()}"
