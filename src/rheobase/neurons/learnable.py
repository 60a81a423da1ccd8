"""Leaky neurons that learn a leak, a threshold or a slope: Diet-SNN, LTMD, KLIF."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.neurons.parameters import per_channel, positive, sharing
from rheobase.surrogate import LinearDecay, Rectangular, Surrogate

__all__ = ["KLIF", "LTMD", "DietLIF"]


class DietLIF(Neuron):
    r"""LIF of Diet-SNN: leak and threshold are learnt, one each for the layer or every channel.

    :math:`h_t = \lambda u_{t-1} + x_t`, fires where :math:`h_t/\theta - 1 > 0`, soft reset. The
    gradient through the spike in the reset is cut, that through :math:`\theta` is kept, as in the
    released code. Source: Rathi and Roy 2020, arXiv 2008.03658.

    Args:
        leak: initial leak, in (0, 1]. As learnt it must stay above 0; it may pass 1, as in the
            released code.
        v_threshold: initial threshold, above 0.
        channels: number of channels (axis 2 of ``[T, N, C, ...]``) for parameters each.
        surrogate: the gradient of the spike by h/theta - 1; default `LinearDecay(0.3)`.

    Raises:
        ValueError: an initial value, or a threshold or leak as learnt, is out of its domain; the
            input has another number of channels.

    >>> DietLIF(leak=0.5, v_threshold=1.0)(torch.full((4, 1), 0.8)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    charge = "leak"

    def __init__(
        self,
        leak: Positive = 1.0,
        v_threshold: Positive = 1.0,
        *,
        channels: Size | None = None,
        surrogate: Surrogate | None = None,
    ) -> None:
        if not 0.0 < leak <= 1.0:
            raise ValueError(f"DietLIF takes a leak above 0 and up to 1, got {leak}")
        super().__init__(
            v_threshold=v_threshold,
            v_reset=None,
            detach_reset=True,
            strict=True,
            surrogate=surrogate if surrogate is not None else LinearDecay(),
        )
        shape = () if channels is None else (channels,)
        self.leak = nn.Parameter(torch.full(shape, float(leak)))
        self.v_threshold: nn.Parameter = nn.Parameter(torch.full(shape, float(v_threshold)))

    @property
    def fire(self) -> str:
        """By the membrane in thresholds."""
        return "ratio_above"

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The leak."""
        leak = positive(self.leak, "DietLIF", "leak")
        return {"decay": per_channel(leak, x, "DietLIF"), "bias": 0.0}

    def threshold(self, x: Tensor) -> Tensor:
        """The threshold, shaped to broadcast to ``x``."""
        theta = positive(self.v_threshold, "DietLIF", "threshold")
        return per_channel(theta, x, "DietLIF")

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"leak and v_threshold per {sharing(self.leak)}"


class LTMD(LIF):
    r"""LIF with a learnt threshold :math:`\theta = \tanh(w)`, one for the layer.

    The membrane decays by ``1 - 1/tau`` (0.25 by default) and the input is added whole; hard reset
    to 0; fires above the threshold. The moderate dropout of the paper is a layer, not a neuron.
    Source: Wang et al. 2022 (LTMD).

    Args:
        v_threshold: initial threshold, in (0, 1); the paper's is tanh(0.5).
        tau: time constant, at least 1.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`; the default is `Rectangular(1.0)`.

    Raises:
        ValueError: the initial threshold, or that learnt, is out of its domain.

    >>> round(LTMD().v_threshold.item(), 4)
    0.4621
    """

    def __init__(
        self, v_threshold: float = math.tanh(0.5), *, tau: float = 4.0 / 3.0, **options: Any
    ) -> None:
        if not 0.0 < v_threshold < 1.0:
            raise ValueError(
                f"LTMD learns v_threshold = tanh(w): it must be in (0, 1), got {v_threshold}"
            )
        options.setdefault("surrogate", Rectangular())
        super().__init__(tau, decay_input=False, v_threshold=v_threshold, strict=True, **options)

    @property
    def v_threshold(self) -> Tensor:
        """The threshold as it stands; assigning sets ``w``."""
        return torch.tanh(self.w)

    @v_threshold.setter
    def v_threshold(self, value: float | Tensor) -> None:
        self.w = nn.Parameter(torch.tensor(math.atanh(value)))

    def threshold(self, x: Tensor) -> Tensor:
        """The threshold; it must be positive, or silent neurons would fire for ever."""
        return positive(self.v_threshold, "LTMD", "threshold")

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"w per layer, tau={self.tau}, v_reset={self.v_reset}"


class KLIF(LIF):
    r"""LIF with a learnt slope: :math:`F_t = \mathrm{relu}(k\,h_t)` fires and is reset.

    ``h`` is charged as in `LIF`. One ``k`` for the layer. The tap "h" is F.
    Source: Jiang and Zhang 2023, arXiv 2302.09238.

    Args:
        tau: time constant, at least 1.
        decay_input: whether the input is divided by tau too.
        scale_reset: divide F by k (and the threshold with it) before the reset.
        k: initial slope, above 0.
        options: the arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is below 1; the initial k, or that learnt, is not above 0.

    >>> KLIF(k=2.0)(torch.full((4, 1), 0.6)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        tau: float = 2.0,
        *,
        decay_input: bool = True,
        scale_reset: bool = False,
        k: Positive = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(tau, decay_input=decay_input, **options)
        self.charge = "rectified"
        self.scale_reset = scale_reset
        self.k = nn.Parameter(torch.tensor(float(k)))

    @property
    def reset(self) -> str:
        """Hard or soft, on F or on F/k."""
        kind = "soft" if self.v_reset is None else "hard"
        return f"{kind}_scaled" if self.scale_reset else kind

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The slope, and what makes `LIF` of the affine form."""
        rate = 1.0 / self.tau
        return {
            "k": positive(self.k, "KLIF", "slope k"),
            "decay": 1.0 - rate,
            "gain": rate if self.decay_input else 1.0,
            "bias": self.rest * rate,
        }

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"scale_reset={self.scale_reset}, {super().extra_repr()}"
