"""The convolution stages that Spike-driven Transformers V2 and V3 share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm

__all__ = ["MetaConvBlock", "meta_downsampling"]


class MetaConvBlock(nn.Module):
    """A separable convolution, then two of 3x3 around four times the width; membranes throughout.

    Args:
        dim: number of channels.
        separable: the separable convolution, membranes to membranes.
        make_neuron: makes each neuron.
    """

    def __init__(
        self, dim: int, separable: nn.Module, make_neuron: Callable[..., nn.Module]
    ) -> None:
        super().__init__()
        self.separable = separable
        self.conv1 = NeuronConvNorm(dim, 4 * dim, make_neuron(), kernel_size=3)
        self.conv2 = NeuronConvNorm(4 * dim, dim, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        x = x + self.separable(x)
        membrane: Tensor = x + self.conv2(self.conv1(x))
        return membrane


def meta_downsampling(
    channels: int, widths: Sequence[int], make_neuron: Callable[..., nn.Module]
) -> nn.ModuleList:
    """What leads into each of the five stages: to 1/2, 1/4, 1/8 and twice 1/16 of the image.

    Args:
        channels: of the image.
        widths: of the five stages.
        make_neuron: makes each neuron.
    """
    first = ConvNormNeuron(channels, widths[0], nn.Identity(), kernel_size=7, stride=2, bias=True)
    later = (
        NeuronConvNorm(a, b, make_neuron(), kernel_size=3, stride=stride, bias=True)
        for a, b, stride in zip(widths, widths[1:], (2, 2, 2, 1), strict=False)
    )
    return nn.ModuleList([first, *later])
