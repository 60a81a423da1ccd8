"""Joint attention over time and channels (TCJA-SNN)."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers._checks import check_sequence, check_steps
from rheobase.neurons.parameters import steps_given
from rheobase.stateful import Stateful

__all__ = ["TCJA"]


class TCJA(Stateful):
    r"""Temporal-channel joint attention: one score for each step and channel.

    .. math:: y = x \odot \sigma(\mathcal{T} \odot \mathcal{C})

    On the mean over pixels, :math:`\mathcal{T}` is a convolution along the channels that mixes all
    steps, :math:`\mathcal{C}` one along time that mixes all channels. Not causal: it cannot
    stream.

    Args:
        steps: T.
        channels: number of channels.
        kernel_t: size of the convolution along the channels.
        kernel_c: size of the convolution along time.

    Raises:
        ValueError: an input of another T or number of channels.

    Source: Zhu et al. 2022 (TCJA-SNN), arXiv 2206.10177, eq. 8 to 11.

    >>> import torch
    >>> TCJA(steps=4, channels=3)(torch.rand(4, 2, 3, 5, 5)).shape
    torch.Size([4, 2, 3, 5, 5])
    """

    causal = False

    def __init__(self, steps: int, channels: int, kernel_t: int = 3, kernel_c: int = 3) -> None:
        super().__init__()
        self.steps = steps_given(type(self).__name__, steps)
        self.channels = channels
        self.along_channels = nn.Conv1d(steps, steps, kernel_t, padding="same", bias=False)
        self.along_time = nn.Conv1d(channels, channels, kernel_c, padding="same", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Current or spikes ``[T, N, C, ...]`` to the same shape."""
        check_sequence(self, x, self.channels)
        check_steps(self, x.shape[0], self.steps)
        mean = x.flatten(3).mean(3) if x.dim() > 3 else x
        by_time = self.along_channels(mean.transpose(0, 1)).transpose(0, 1)
        by_channel = self.along_time(mean.permute(1, 2, 0)).permute(2, 0, 1)
        scores: Tensor = (by_time * by_channel).sigmoid()
        return x * scores.view(*scores.shape, *[1] * (x.dim() - 3))
