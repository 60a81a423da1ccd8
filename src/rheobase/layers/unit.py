"""Convolution, batch norm and neuron, in the two orders that spiking vision networks use."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.time import leaking, over_time

__all__ = ["ConvNormNeuron", "NeuronConvNorm"]


class ConvNormNeuron(nn.Module):
    """``neuron(norm(conv(x)))`` on a sequence ``[T, N, C, H, W]``: spikes out.

    Batch norm takes its statistics over T and N together. With ``nn.GELU()`` or ``nn.Identity()``
    in the neuron's place this is the unit of an ordinary network.

    Args:
        channels: number of input channels.
        width: number of output channels.
        neuron: what follows the batch norm, called on the whole sequence.
        kernel_size: odd; 1 makes it a linear layer on every pixel (token).
        stride: of the convolution.
        groups: of the convolution.
        bias: whether the convolution has one.
        pool: halve the image between batch norm and neuron, by the maximum of 3x3 windows (so
            that gradients see real numbers there, without ties).
        leaks: the neuron's membrane leaks between the samples of a batch (see
            `rheobase.layers.time.leaking`), for checkpoints that need it.

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
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        pool: bool = False,
        leaks: bool = False,
    ) -> None:
        super().__init__()
        self.conv = _conv(channels, width, kernel_size, stride, groups, bias)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else None
        self.neuron = neuron
        self.leaks = leaks

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to ``[T, N, width, H', W']``, halved by stride and pool."""
        layers = (self.conv, self.norm) if self.pool is None else (self.conv, self.norm, self.pool)
        if self.leaks:
            return leaking(over_time(x, *layers), self.neuron)
        return over_time(x, *layers, self.neuron)


class NeuronConvNorm(nn.Module):
    """``norm(conv(neuron(x)))`` on a sequence ``[T, N, C, H, W]``: membranes in and out.

    The unit of networks whose shortcuts carry membrane potentials. Arguments are those of
    `ConvNormNeuron`.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> NeuronConvNorm(8, 16, LIF(), kernel_size=3, stride=2)(torch.rand(4, 2, 8, 16, 16)).shape
    torch.Size([4, 2, 16, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        width: int,
        neuron: nn.Module,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.neuron = neuron
        self.conv = _conv(channels, width, kernel_size, stride, groups, bias)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to ``[T, N, width, H / stride, W / stride]``."""
        return over_time(self.neuron(x), self.conv, self.norm)


def _conv(
    channels: int, width: int, kernel_size: int, stride: int, groups: int, bias: bool
) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(channels, width, kernel_size, stride, padding, groups=groups, bias=bias)
