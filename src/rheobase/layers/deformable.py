"""Deformable convolution, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from rheobase._numbers import Size, numbers_checked

__all__ = ["DeformableConv2d"]


@numbers_checked
class DeformableConv2d(nn.Module):
    """A convolution whose kernel reads, at each pixel, from places that another one computes.

    Places between pixels are interpolated, those outside the image are 0. It starts as an ordinary
    convolution (all offsets 0). Source: Dai et al. 2017, arXiv 1703.06211 (version 1).

    Args:
        channels: number of input channels.
        width: number of output channels.
        kernel_size: odd; the image keeps its size.

    >>> DeformableConv2d(4, 8)(torch.rand(2, 4, 6, 5)).shape
    torch.Size([2, 8, 6, 5])
    """

    def __init__(self, channels: Size, width: Size, kernel_size: Size = 3) -> None:
        super().__init__()
        like = nn.Conv2d(channels, width, kernel_size)
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias
        self.offset = nn.Conv2d(channels, 2 * kernel_size**2, kernel_size, padding=kernel_size // 2)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H, W] -> [N, width, H, W]``."""
        height, width = x.shape[-2:]
        k = self.weight.shape[-1]
        # Pairs (down, right), one for each place of the kernel.
        offsets = self.offset(x).reshape(len(x), k * k, 2, height, width)
        reach = torch.arange(k, device=x.device) - k // 2
        down = torch.arange(height, device=x.device).view(-1, 1)
        down = down + reach.repeat_interleave(k).view(-1, 1, 1) + offsets[:, :, 0]
        right = torch.arange(width, device=x.device)
        right = right + reach.repeat(k).view(-1, 1, 1) + offsets[:, :, 1]
        # grid_sample counts from -1 to 1 over the image.
        right, down = right * (2.0 / max(width - 1, 1)), down * (2.0 / max(height - 1, 1))
        grid = torch.stack([right, down], dim=-1) - 1.0
        read = grid_sample(x, grid.flatten(1, 2), align_corners=True)
        columns = read.reshape(len(x), -1, height * width)  # channels, then places
        y: Tensor = self.weight.flatten(1) @ columns + self.bias.view(-1, 1)
        return y.reshape(len(x), -1, height, width)
