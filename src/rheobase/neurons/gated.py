"""GLIF: gates choose between two kinds of leak, of input and of reset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.parameters import (
    channel_shape,
    logit,
    per_channel,
    positive,
    sharing,
    wrong_steps,
)
from rheobase.ops.eager import is_plain
from rheobase.ops.native import DTYPES, Kernel, imported_kernel
from rheobase.ops.scan import LearntCoefficients
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
    decays = False  # as in the official code: gates at rest would be gates half open

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
        if gates is not None and len(gates) != 3:
            raise ValueError(f"GLIF takes three gates (alpha, beta, gamma), got {gates}")
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

    @property
    def leak_factor(self) -> None:
        """None: a gate chooses between two kinds of leak."""
        return None

    def threshold(self, x: Tensor) -> Tensor:
        """The threshold as learnt, shaped to broadcast to ``x``."""
        return per_channel(self.theta.sigmoid(), x, "GLIF")

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Decay, gain (of each step) and bias; the threshold, and what the gated reset takes."""
        return self._followed(x) | self.surrogate_coefficients(x)

    def learnt(self, x: Tensor) -> LearntCoefficients | None:
        """The same by kernels."""
        if not is_plain(x) or self.theta.device.type != "cpu" or self.theta.dtype not in _DTYPES:
            return None
        parameters = tuple(getattr(self, name) for name in _LEARNT)
        make, back = partial(_make, self._shape(x)), partial(_back, self.conductance.shape[1:])
        return LearntCoefficients(_COEFFICIENTS, parameters, make, back, partial(self._followed, x))

    def _followed(self, x: Tensor) -> dict[str, float | Tensor]:
        """The coefficients that are learnt, as autograd follows them."""
        shape = self._shape(x)
        learnt = torch.cat([getattr(self, name).reshape(-1) for name in _LEARNT])
        values = positive(learnt.sigmoid(), *_WHAT).view(-1, *shape)
        alpha, beta, gamma, tau, leak, subtracted, threshold = values[:_SHARED].unbind()
        decay = 1.0 - alpha * (1.0 - tau)
        amount = (1.0 - gamma) * subtracted / decay
        gain = 1.0 - beta * (1.0 - values[_SHARED:])
        found = decay, (alpha - 1.0) * leak, threshold, 1.0 - gamma, amount, gain
        return dict(zip(_COEFFICIENTS, found, strict=True))

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Of a parameter made to broadcast to ``x``."""
        if x.shape[0] != self.conductance.shape[0]:
            raise ValueError(wrong_steps("GLIF", self.conductance.shape[0], x))
        if self.theta.dim() == 0:
            return (1,) * (x.dim() - 1)
        return channel_shape(self.theta, x, "GLIF")

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"T={self.conductance.shape[0]}, parameters per {sharing(self.alpha)}"


# How many are learnt for all steps, and how many coefficients follow from them.
_SHARED, _FOUND = 7, 5

_DTYPES = (torch.float32, torch.float64)
_WHAT = ("GLIF", "gate or constant")

_LEARNT = ("alpha", "beta", "gamma", "tau", "leak", "subtracted", "theta", "conductance")
_COEFFICIENTS = ("decay", "bias", "threshold", "kept", "amount", "gain")
_ARRAYS = {
    "coefficients": (*_LEARNT, "values", "found", "least"),
    "gradients": ("values", "found", *(f"g_{name}" for name in _COEFFICIENTS), "by_learnt"),
}


def _make(
    shape: tuple[int, ...], parameters: Sequence[Tensor]
) -> tuple[Sequence[Tensor], tuple[Tensor, Tensor]]:
    """The coefficients, views of one tensor; it and the sigmoids are what `_back` needs."""
    theta, conductance = parameters[-2:]
    count = theta.numel()
    values = theta.new_empty((_SHARED + len(conductance)) * count)
    found = theta.new_empty((_FOUND + len(conductance)) * count)
    least = theta.new_empty(1)
    learnt = [parameter.contiguous() for parameter in parameters]
    traffic = values.nbytes + found.nbytes
    _kernel("coefficients", theta.dtype)(1, traffic, *learnt, values, found, least)
    if not least.item() > 0.0:
        positive(values, *_WHAT)
    sizes = (*(1,) * _FOUND, len(conductance))
    return found.view(-1, *shape).split_with_sizes(sizes), (values, found)


def _back(
    shape: tuple[int, ...], made_of: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The gradient of the parameters, of ``shape`` (the conductance: at every step)."""
    values, found = made_of
    by_learnt = torch.empty_like(values)
    given = [gradient.contiguous() for gradient in gradients]
    _kernel("gradients", values.dtype)(1, 2 * values.nbytes, values, found, *given, by_learnt)
    rows = by_learnt.view(-1, *shape)
    return [*rows[:_SHARED].unbind(), rows[_SHARED:]]


@cache
def _kernel(name: str, dtype: torch.dtype) -> Kernel:
    arrays = _ARRAYS[name]
    return imported_kernel("gates", name, dict.fromkeys(arrays, f"{DTYPES[dtype]}*"))
