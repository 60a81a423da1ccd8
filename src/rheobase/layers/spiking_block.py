"""The block of transformers whose stream carries small integers."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.residual import sew_join

__all__ = ["SpikingBlock"]


class SpikingBlock(nn.Module):
    """Attention, or what stands in its place, then MLP, each added to a stream of small integers.

    Args:
        attn: ``[T, N, C, H, W]`` to spikes of the same shape.
        mlp: likewise.

    Source: Zhou et al. 2023 (Spikformer), arXiv 2209.15425.

    >>> import torch
    >>> from rheobase.layers.mlp import SpikingMlp
    >>> from rheobase.neurons import LIF
    >>> block = SpikingBlock(nn.Identity(), SpikingMlp(8, 16, LIF))
    >>> block(torch.ones(2, 1, 8, 4, 4)).shape
    torch.Size([2, 1, 8, 4, 4])
    """

    def __init__(self, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(self.attn(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")
