"""Encoders: images to spikes, one step at a call.

In version 0.0.0.0.12 they had no ``step_mode``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.compat.spikingjelly.base import MemoryModule, StepModule

__all__ = [
    "LatencyEncoder",
    "PeriodicEncoder",
    "PoissonEncoder",
    "StatefulEncoder",
    "StatelessEncoder",
    "WeightedPhaseEncoder",
]


class StatelessEncoder(nn.Module, StepModule):
    """An encoder without memory."""

    def __init__(self, step_mode: str = "s") -> None:
        super().__init__()
        self.step_mode = step_mode


class PoissonEncoder(StatelessEncoder):
    """A spike with probability ``x``, at every call anew."""

    def forward(self, x: Tensor) -> Tensor:
        """Intensities from 0 to 1 to spikes of the same shape."""
        return torch.rand_like(x).le(x).to(x)


class StatefulEncoder(MemoryModule):
    """An encoder that makes ``T`` steps of its first input, and puts out one at a call, in turns.

    A subclass implements ``single_step_encode``, which sets ``self.spike`` (``[T, ...]``).

    Args:
        T: steps.
        step_mode: "s" or "m".
    """

    spike: Any
    t: Any

    def __init__(self, T: int, step_mode: str = "s") -> None:
        super().__init__()
        if T < 1:
            raise ValueError(f"T must be at least 1, got {T}")
        self.step_mode = step_mode
        self.T = T
        self.register_memory("spike", None)
        self.register_memory("t", 0)

    def single_step_forward(self, x: Tensor | None = None) -> Any:
        """The next step of the spikes of the first ``x`` since `reset`."""
        if self.spike is None:
            self.single_step_encode(x)
        now = self.t
        self.t = (now + 1) % self.T
        return self.spike[now]

    def single_step_encode(self, x: Any) -> None:
        """Set ``self.spike``."""
        raise NotImplementedError(f"{type(self).__name__} brings no single_step_encode")

    def encode(self, x: Any) -> None:
        """As version 0.0.0.0.12 called it."""
        self.single_step_encode(x)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"T={self.T}"


class PeriodicEncoder(StatefulEncoder):
    """Given spikes ``[T, ...]``, over and over."""

    def __init__(self, spike: Tensor, step_mode: str = "s") -> None:
        super().__init__(spike.shape[0], step_mode)
        self.set_reset_value("spike", spike)
        self.spike = spike

    def single_step_encode(self, x: Tensor) -> None:
        """Other spikes."""
        self.spike, self.T = x, x.shape[0]


class LatencyEncoder(StatefulEncoder):
    r"""One spike, the sooner the brighter.

    At step :math:`(T - 1)(1 - x)` ("linear"), or :math:`T - 1 - \ln(\alpha x + 1)` ("log"), with
    :math:`\alpha = e^{T-1} - 1`; rounded.

    Args:
        T: steps.
        enc_function: "linear" or "log".
        step_mode: "s" or "m".
    """

    def __init__(self, T: int, enc_function: str = "linear", step_mode: str = "s") -> None:
        super().__init__(T, step_mode)
        if enc_function not in ("linear", "log"):
            raise ValueError(f'enc_function must be "linear" or "log", got {enc_function!r}')
        self.enc_function = enc_function
        self.alpha = math.exp(T - 1.0) - 1.0

    def single_step_encode(self, x: Tensor) -> None:
        """Intensities from 0 to 1."""
        last = self.T - 1.0
        when = (
            last * (1.0 - x) if self.enc_function == "linear" else last - (self.alpha * x).log1p()
        )
        self.spike = F.one_hot(when.round().long(), self.T).movedim(-1, 0).to(x)


class WeightedPhaseEncoder(StatefulEncoder):
    """The first ``K`` binary digits of intensities below 1, the highest first.

    Source: Kim et al. 2018, "Deep neural networks with weighted spikes".
    """

    def __init__(self, K: int, step_mode: str = "s") -> None:
        super().__init__(K, step_mode)

    def single_step_encode(self, x: Tensor) -> None:
        """Intensities from 0 to 1 - 2^-K.

        Raises:
            ValueError: an intensity has no such digits.
        """
        if not bool(((x >= 0) & (x <= 1.0 - 2.0**-self.T)).all()):
            raise ValueError(f"intensities must be in [0, 1 - 2^-{self.T}]")
        scaled = (x * 2**self.T).floor().long()
        digits = torch.arange(self.T - 1, -1, -1, device=x.device).view(-1, *[1] * x.dim())
        self.spike = (scaled >> digits & 1).to(x)
