"""The two-layer networks on every token of spiking transformers, in the two orders of neuron."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm

__all__ = ["MembraneMlp", "SpikingMlp", "add_mlp"]


class SpikingMlp(nn.Module):
    """Two layers on every token, each with its neuron behind it: spikes out.

    Args:
        dim: number of channels.
        hidden: number of channels between the layers.
        make_neuron: makes each neuron.
        bias: whether the layers have biases.
    """

    def __init__(
        self, dim: int, hidden: int, make_neuron: Callable[..., nn.Module], *, bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = ConvNormNeuron(dim, hidden, make_neuron(), bias=bias)
        self.fc2 = ConvNormNeuron(hidden, dim, make_neuron(), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        y: Tensor = self.fc2(self.fc1(x))
        return y


class MembraneMlp(nn.Module):
    """Two layers on every token, each with its neuron before it: membranes in and out.

    Arguments are those of `SpikingMlp`.
    """

    def __init__(
        self, dim: int, hidden: int, make_neuron: Callable[..., nn.Module], *, bias: bool = True
    ) -> None:
        super().__init__()
        self.fc1 = NeuronConvNorm(dim, hidden, make_neuron(), bias=bias)
        self.fc2 = NeuronConvNorm(hidden, dim, make_neuron(), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        y: Tensor = self.fc2(self.fc1(x))
        return y


def add_mlp(x: Tensor, mlp: MembraneMlp, inner_shortcut: bool = False) -> Tensor:
    """``x + mlp(x)`` on membranes.

    With ``inner_shortcut`` each of the two layers has a shortcut of its own, as released code has
    where both are as wide as the stream.
    """
    if not inner_shortcut:
        return x + mlp(x)  # type: ignore[no-any-return]
    x = x + mlp.fc1(x)
    return x + mlp.fc2(x)  # type: ignore[no-any-return]
