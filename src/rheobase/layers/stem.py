"""The stem of transformers whose shortcuts carry membranes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from rheobase.layers.time import over_time
from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm

__all__ = ["MembraneStem"]


class MembraneStem(nn.Module):
    """Four convolutions to tokens and a position embedding; the last two pass membranes on.

    Source: Yao et al. 2023 (Spike-driven Transformer), arXiv 2307.01694; SWformer has it too.

    Args:
        channels: of the images.
        dim: channels of a token, a multiple of 8.
        patch_size: pixels to a token's side: 1, 2, 4, 8 or 16; the last ``log2(patch_size)`` of the
            four stages halve the image.
        make_neuron: makes each neuron.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> MembraneStem(3, 16, 4, LIF)(torch.rand(2, 1, 3, 8, 8)).shape
    torch.Size([2, 1, 16, 2, 2])
    """

    def __init__(
        self, channels: int, dim: int, patch_size: int, make_neuron: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        widths = pairwise([channels, dim // 8, dim // 4, dim // 2])
        self.stages = nn.ModuleList(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3) for a, b in widths
        )
        self.stages.append(ConvNormNeuron(dim // 2, dim, nn.Identity(), kernel_size=3))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.first_pooled = 4 - int(math.log2(patch_size))
        self.position = NeuronConvNorm(dim, dim, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H / patch, W / patch]``."""
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i >= self.first_pooled:
                x = over_time(x, self.pool)
        membrane: Tensor = x + self.position(x)
        return membrane
