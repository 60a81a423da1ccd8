"""Stem and block of transformers whose stream carries membranes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from rheobase.layers.attention import MembraneSelfAttention
from rheobase.layers.mlp import MembraneMlp, add_mlp
from rheobase.layers.time import over_time
from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm

__all__ = ["MembraneBlock", "MembraneStem"]


class MembraneStem(nn.Module):
    """Four convolutions to tokens and a position embedding; the last two pass membranes on.

    Args:
        channels: of the image.
        dim: channels of a token, a multiple of 8.
        patch_size: pixels to a token's side; the last ``log2(patch_size)`` stages halve the image,
            behind their neuron (the last stage has none).
        make_neuron: makes each neuron.
        position: the neuron before the convolution that embeds the position.

    Source: Yao et al. 2023 (Spike-driven Transformer), arXiv 2307.01694; SWformer has it too.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> MembraneStem(3, 16, 4, LIF, LIF())(torch.rand(2, 1, 3, 8, 8)).shape
    torch.Size([2, 1, 16, 2, 2])
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        patch_size: int,
        make_neuron: Callable[..., nn.Module],
        position: nn.Module,
    ) -> None:
        super().__init__()
        neurons = [make_neuron(), make_neuron(), make_neuron(), nn.Identity()]
        widths = pairwise([channels, dim // 8, dim // 4, dim // 2, dim])
        self.stages = nn.ModuleList(
            ConvNormNeuron(a, b, neuron, kernel_size=3)
            for (a, b), neuron in zip(widths, neurons, strict=True)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.first_pooled = 4 - int(math.log2(patch_size))
        self.position = NeuronConvNorm(dim, dim, position, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H / patch, W / patch]``."""
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i >= self.first_pooled:
                x = over_time(x, self.pool)
        membrane: Tensor = x + self.position(x)
        return membrane


class MembraneBlock(nn.Module):
    """Attention, then MLP, each added to the membranes.

    Args:
        dim: number of channels.
        heads: divides ``dim``.
        hidden: number of channels inside the MLP.
        make_neuron: makes each neuron; called with ``v_threshold=0.5`` for the one after the
            attention product.
        qkv_bias: whether the layers of Q, K and V have biases.
        inner_shortcut: of the MLP, see `add_mlp`.

    Source: Zhou et al. 2023 (Spikingformer), arXiv 2304.11954.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        make_neuron: Callable[..., nn.Module],
        *,
        qkv_bias: bool = False,
        inner_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.inner_shortcut = inner_shortcut
        self.attn = MembraneSelfAttention(
            heads,
            input=make_neuron(),
            q=ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias),
            k=ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias),
            v=ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias),
            neuron=make_neuron(v_threshold=0.5),
            proj=ConvNormNeuron(dim, dim, nn.Identity(), bias=True),
        )
        self.mlp = MembraneMlp(dim, hidden, make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        return add_mlp(x + self.attn(x), self.mlp, self.inner_shortcut)
