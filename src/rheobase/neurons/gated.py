"""GLIF: gates choose between two kinds of leak, of input and of reset."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.parameters import (
    logit,
    per_channel,
    positive,
    sharing,
    wrong_steps,
)
from rheobase.ops.eager import is_plain, is_transformed
from rheobase.surrogate import Rectangular, Surrogate

__all__ = ["GLIF"]


class GLIF(Neuron):
    r"""Gated LIF, all of whose parameters are learnt, for the layer or for every channel.

    .. math::
        h_t = (1-\alpha(1-\tau))\,h_{t-1}(1-\gamma s_{t-1}) - (1-\alpha)\,l
              + (1-\beta(1-g_t))\,x_t - (1-\gamma)\,r\,s_{t-1}, \qquad s_t = [h_t > \theta]

    The gates :math:`\alpha` (leak: linear or exponential), :math:`\beta` (input: plain or weighted
    by :math:`g_t`) and :math:`\gamma` (reset: soft or hard), and :math:`\tau, l, g_t, r, \theta`
    are sigmoids of the parameters. What the reset subtracts at the next step is here taken off
    at once, divided by the decay: so the tap "v" is the membrane after that, while "h" is the
    paper's membrane. There is one g for each step, so T is fixed and pieces cannot be streamed.
    Source: Yao et al. 2022, arXiv 2210.13768.

    Args:
        T: number of time steps.
        channels: number of channels (axis 2 of ``[T, N, C, ...]``) for parameters each.
        tau: initial exponential decay, in (0, 1), as are the next three.
        v_threshold: initial threshold; also the initial amount of the soft reset.
        leak: initial linear leak; default ``v_threshold / (2 * T)``.
        conductance: initial weight of the input at each step.
        gates: initial alpha, beta and gamma: each drawn near 0.5 (SpikingJelly) by default, or
            given (the official code maps its ``--gate`` i to 0.25 + i / 2).
        strict: fire above the threshold only, as in the official code.
        surrogate: default `Rectangular(1.0)`, that of the official code.

    Raises:
        ValueError: T is below 1, or an initial value not in (0, 1); a parameter as learnt is not a
            number; the input has another T, or another number of channels.

    >>> GLIF(T=4, channels=3)(torch.rand(4, 1, 3, 2, 2)).shape
    torch.Size([4, 1, 3, 2, 2])
    """

    charge = "affine"
    causal = False  # its g_t belong to absolute steps

    def __init__(
        self,
        T: Size,
        channels: Size | None = None,
        *,
        tau: float = 0.25,
        v_threshold: float = 0.5,
        leak: float | None = None,
        conductance: float = 0.5,
        gates: tuple[float, float, float] | None = None,
        strict: bool = True,
        surrogate: Surrogate | None = None,
    ) -> None:
        surrogate = surrogate if surrogate is not None else Rectangular()
        super().__init__(v_threshold=v_threshold, v_reset=None, strict=strict, surrogate=surrogate)
        shape = () if channels is None else (channels,)
        for i, name in enumerate(("alpha", "beta", "gamma")):
            drawn = nn.Parameter(0.2 * (torch.rand(shape) - 0.5))
            setattr(self, name, drawn if gates is None else logit(gates[i], shape, "GLIF", name))
        leak = v_threshold / (2 * T) if leak is None else leak
        self.tau = logit(tau, shape, "GLIF", "tau")
        self.theta = logit(v_threshold, shape, "GLIF", "v_threshold")
        self.leak = logit(leak, shape, "GLIF", "leak")
        self.subtracted = logit(v_threshold, shape, "GLIF", "v_threshold")
        self.conductance = logit(conductance, (T, *shape), "GLIF", "conductance")

    alpha: nn.Parameter
    beta: nn.Parameter
    gamma: nn.Parameter

    @property
    def reset(self) -> str:
        """By the gate gamma."""
        return "gated"

    def threshold(self, x: Tensor) -> Tensor:
        """The threshold as learnt, shaped to broadcast to ``x``."""
        return per_channel(self.theta.sigmoid(), x, "GLIF")

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Decay, gain (of each step) and bias; the threshold, and what the gated reset takes."""
        if x.shape[0] != self.conductance.shape[0]:
            raise ValueError(wrong_steps("GLIF", self.conductance.shape[0], x))
        parameters = (
            self.alpha, self.beta, self.gamma, self.tau, self.leak, self.subtracted, self.theta,
            self.conductance,
        )  # fmt: skip
        # Of so many small tensors autograd's own graph costs more than the scan.
        eager = is_plain(x) and not is_transformed()
        found = (_Coefficients.apply if eager else _coefficients)(self._shape(x), *parameters)
        names = ("decay", "bias", "threshold", "kept", "amount", "gain")
        return {**dict(zip(names, found, strict=True)), **self.surrogate_coefficients(x)}

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Of a parameter made to broadcast to ``x``."""
        if self.theta.dim() == 0:
            return (1,) * (x.dim() - 1)
        return tuple(per_channel(self.theta.detach(), x, "GLIF").shape)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"T={self.conductance.shape[0]}, parameters per {sharing(self.alpha)}"


# Alpha, beta, gamma, tau, leak, what the reset subtracts and the threshold.
_SHARED = 7


def _coefficients(shape: tuple[int, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
    """Decay, bias, threshold, what the reset keeps and takes off, and the gain of each step."""
    values = _values(shape, *parameters)
    return _from_values(values, 1.0 - values)


def _values(shape: tuple[int, ...], *parameters: Tensor) -> Tensor:
    """What is learnt, in one tensor: seven that all steps share, then the conductances."""
    learnt = torch.cat([parameter.reshape(-1) for parameter in parameters])
    return positive(learnt.sigmoid(), "GLIF", "gate or constant").view(-1, *shape)


def _from_values(values: Tensor, complement: Tensor) -> tuple[Tensor, ...]:
    """The coefficients; ``complement`` is 1 minus each value."""
    alpha, beta, _, _, leak, subtracted, threshold = values[:_SHARED].unbind()
    not_alpha, _, not_gamma, not_tau = complement[:4].unbind()
    decay = 1.0 - alpha * not_tau
    amount = not_gamma * subtracted / decay
    gain = 1.0 - beta * complement[_SHARED:]
    return decay, -not_alpha * leak, threshold, not_gamma, amount, gain


class _Coefficients(torch.autograd.Function):
    """`_coefficients` as one node of the graph, its gradient written down."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
        values = _values(shape, *parameters)
        complement = 1.0 - values
        found = decay, _, _, _, amount, _ = _from_values(values, complement)
        ctx.save_for_backward(values, complement, decay, amount)
        ctx.shape = parameters[-1].shape
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g_decay, g_bias, g_threshold, g_kept, g_amount, g_gain = gradients
        values, complement, decay, amount = ctx.saved_tensors
        alpha, beta, _, _, leak, subtracted, _ = values[:_SHARED].unbind()
        not_alpha, _, not_gamma, not_tau = complement[:4].unbind()
        by_amount = g_amount / decay
        g_decay = g_decay - by_amount * amount
        by_shared = torch.stack([
            g_bias * leak - g_decay * not_tau,
            -(g_gain * complement[_SHARED:]).sum(0),
            -g_kept - by_amount * subtracted,
            g_decay * alpha,
            -g_bias * not_alpha,
            by_amount * not_gamma,
            g_threshold,
        ])  # fmt: skip
        by_learnt = torch.cat([by_shared, g_gain * beta]) * (values * complement)
        by_learnt = by_learnt.view(-1, *ctx.shape[1:])
        return None, *by_learnt[:_SHARED].unbind(), by_learnt[_SHARED:]
