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
    """Spikes of the input's sign, as probable in every step as the input is large.

    A probability is 1 at most. Where calibration inputs are beyond 1 (images with mean and
    deviation taken out), spikes have the size of the largest, and probabilities are shares of it:
    the mean over T is the input still.
    Source: Rathi et al. 2020 (signed); without negative values the rate code of Cao et al. 2015.
    """

    conventions = ("mean",)
    takes_constant = True

    def __init__(self) -> None:
        super().__init__()
        self.size: Tensor
        self.register_buffer("size", torch.ones(()))

    def reach(self, inputs: Tensor) -> None:
        """Make spikes large enough for all of these inputs."""
        self.size = inputs.abs().max().clamp(min=1.0)

    def forward(self, x: Tensor, *, steps: int, constant: bool = True) -> Tensor:
        """``[N, ...]`` to ``[T * N, ...]``."""
        probability = x.abs() / self.size
        fires = probability >= torch.rand(steps, *x.shape, dtype=x.dtype, device=x.device)
        return folded(fires * (x.sign() * self.size))


ENCODERS: dict[str, type[Replacement]] = {"impulse": Impulse, "poisson": PoissonSpikes}
