"""Attention over channels, then over pixels, of a sequence of currents (CSA)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

__all__ = ["ChannelSpatialAttention"]


class ChannelSpatialAttention(nn.Module):
    r"""CSA: :math:`\mathrm{relu}(s \odot c \odot x)`, with one score c a channel and s a pixel.

    Both are scores of the whole sequence: :math:`c = \sigma(M(\bar x) + M(\hat x))` of the mean
    and maximum over steps and pixels, with a two-layer M; :math:`s = \sigma(K * [\bar x, \hat x])`
    of those over steps and channels, with a convolution K. So it is not causal.

    Args:
        channels: of its input.
        reduction: channels over the hidden width of M.
        kernel_size: of K, odd.

    Raises:
        ValueError: ``reduction`` leaves no hidden channel.

    Source: Yao et al. 2023 (MA-SNN), arXiv 2209.13929, eq. 9 to 16.

    >>> ChannelSpatialAttention(16)(torch.rand(4, 2, 16, 8, 8)).shape
    torch.Size([4, 2, 16, 8, 8])
    """

    causal = False

    def __init__(self, channels: int, reduction: int = 8, kernel_size: int = 3) -> None:
        super().__init__()
        hidden = channels // reduction
        if hidden < 1:
            raise ValueError(f"a reduction of {reduction} leaves nothing of {channels} channels")
        self.channel = nn.Sequential(
            OrderedDict(
                squeeze=nn.Linear(channels, hidden, bias=False),
                relu=nn.ReLU(),
                excite=nn.Linear(hidden, channels, bias=False),
            )
        )
        self.space = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape, nothing below 0."""
        pooled = torch.stack([x.mean((0, -2, -1)), x.amax((0, -2, -1))])
        x = x * self.channel(pooled).sum(0).sigmoid()[..., None, None]
        pooled = torch.stack([x.mean((0, 2)), x.amax((0, 2))], 1)
        y: Tensor = (x * self.space(pooled).sigmoid()).relu()
        return y
