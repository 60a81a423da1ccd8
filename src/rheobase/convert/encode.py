"""How an input enters a converted network, where not as the same current at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.convert.spiking import Replacement, folded
from rheobase.stateful import Stateful

__all__ = ["ENCODERS", "Impulse", "PoissonSpikes"]


class Impulse(Replacement, Stateful):
    """The whole input at the first step, nothing after: its sum over T is the input."""

    conventions = ("sum",)
    takes_constant = True

    def forward(self, x: Tensor, *, steps: int, constant: bool = True) -> Tensor:
        """``[N, ...]`` to ``[T * N, ...]``."""
        out = x.new_zeros(steps, *x.shape)
        if self.carried is None:
            out[0] = x
        self.carry(x.new_ones(()))
        return folded(out)


class PoissonSpikes(Replacement):
    """Spikes of the input's sign, with its size (at most 1) as probability in every step.

    Source: Rathi et al. 2020 (signed); without negative values the rate code of Cao et al. 2015.
    """

    conventions = ("mean",)
    takes_constant = True

    def forward(self, x: Tensor, *, steps: int, constant: bool = True) -> Tensor:
        """``[N, ...]`` to ``[T * N, ...]``."""
        fires = x.abs() >= torch.rand(steps, *x.shape, dtype=x.dtype, device=x.device)
        return folded(fires * x.sign())


ENCODERS: dict[str, type[Replacement]] = {"impulse": Impulse, "poisson": PoissonSpikes}
