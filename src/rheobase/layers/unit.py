"""Convolution, batch norm, neuron: the unit that spiking vision networks are made of."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.time import over_time

__all__ = ["ConvNormNeuron"]


class ConvNormNeuron(nn.Module):
    """``neuron(norm(conv(x)))`` on a sequence ``[T, N, C, H, W]``; the image keeps its size.

    Batch norm takes its statistics over T and N together. With ``nn.GELU()`` or ``nn.Identity()``
    in the neuron's place this is the unit of an ordinary network.

    Args:
        channels: number of input channels.
        width: number of output channels.
        neuron: what follows the batch norm, called on the whole sequence.
        kernel_size: odd; 1 makes it a linear layer on every pixel (token).
        bias: whether the convolution has one.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> ConvNormNeuron(3, 8, LIF(), kernel_size=3)(torch.rand(4, 2, 3, 16, 16)).shape
    torch.Size([4, 2, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        width: int,
        neuron: nn.Module,
        *,
        kernel_size: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.BatchNorm2d(width)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H, W]``."""
        return over_time(x, self.conv, self.norm, self.neuron)
