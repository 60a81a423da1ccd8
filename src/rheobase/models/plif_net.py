"""PLIF networks: convolutions, max pooling and a vote of spiking outputs, for six data sets.

Fang et al. 2021, "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
Neural Networks", arXiv 2007.05785, table 1. Parameters are named and numbered as in SpikingJelly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rheobase.layers.dropout import DropoutOverTime
from rheobase.layers.sequential import TimeSequential
from rheobase.layers.vote import vote
from rheobase.models._inputs import as_sequence
from rheobase.models._neurons import plif_neuron
from rheobase.models.registry import Family, MakeNeuron, Official

__all__ = ["FAMILY", "PRESETS", "PLIFNet", "PLIFNetConfig"]

_VOTERS = 10


@dataclass(frozen=True)
class PLIFNetConfig:
    """One PLIF network.

    Args:
        convs: 3x3 convolutions before each max pooling, all of ``width`` channels: ``(3, 3)`` are
            three, pooling, three, pooling.
        hidden: width of the linear layer before the last.
        width: channels of every convolution.
        bias: whether linear layers have biases, as in SpikingJelly; the first release has none.
        dropout: probability, before both linear layers; one mask for all steps.
        num_classes: outputs, each the vote of ten neurons.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: sizes that are not positive, or images too small for the poolings.
    """

    convs: tuple[int, ...]
    hidden: int
    width: int = 128
    bias: bool = True
    dropout: float = 0.5
    num_classes: int = 10
    channels: int = 2
    image_size: int = 128
    T: int = 20

    def __post_init__(self) -> None:
        sizes = (*self.convs, self.hidden, self.width, self.num_classes, self.channels, self.T)
        if not self.convs or min(sizes) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.image_size < 2 ** len(self.convs):
            raise ValueError(
                f"image_size={self.image_size} is too small for {len(self.convs)} poolings"
            )


class PLIFNet(nn.Module):
    """A PLIF network.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = PLIFNet(PLIFNetConfig((1, 1), hidden=32, width=8, image_size=8, T=4))
    >>> net(torch.rand(5, 2, 2, 8, 8)).shape
    torch.Size([5, 2, 10])
    """

    def __init__(self, config: PLIFNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        self.conv_fc = TimeSequential(*_layers(config, make_neuron or plif_neuron()))

    def forward(self, x: Tensor) -> Tensor:
        """Votes of every step; their mean over T, a firing rate, is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``, in [0, 1].

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or size, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, size=config.image_size)
        return vote(self.conv_fc(x), _VOTERS)


def _layers(config: PLIFNetConfig, make_neuron: MakeNeuron) -> Iterator[nn.Module]:
    channels = config.channels
    for convs in config.convs:
        for _ in range(convs):
            yield nn.Conv2d(channels, config.width, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(config.width)
            yield make_neuron()
            channels = config.width
        yield nn.MaxPool2d(2)
    yield nn.Flatten()
    fan_in = channels * (config.image_size // 2 ** len(config.convs)) ** 2
    for width in (config.hidden, config.num_classes * _VOTERS):
        yield DropoutOverTime(config.dropout)
        yield nn.Linear(fan_in, width, bias=config.bias)
        yield make_neuron()
        fan_in = width


_DIGITS = PLIFNetConfig((1, 1), 2048, channels=1, image_size=28, T=8)

PRESETS: dict[str, PLIFNetConfig] = {
    "plif_net_mnist": _DIGITS,
    "plif_net_fashion_mnist": _DIGITS,
    "plif_net_nmnist": PLIFNetConfig((1, 1), 2048, image_size=34, T=10),
    "plif_net_cifar10": PLIFNetConfig((3, 3), 2048, width=256, channels=3, image_size=32, T=8),
    "plif_net_cifar10dvs": PLIFNetConfig((1, 1, 1, 1), 512),
    "plif_net_dvs128gesture": PLIFNetConfig((1, 1, 1, 1, 1), 512, num_classes=11),
}


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> PLIFNetConfig:
    """The preset whose layers have these numbers; T is not told by them, nor the image's size."""
    shapes = {key: value for key, value in weights.items() if value.dim() > 1}
    for name, preset in PRESETS.items():
        layers = list(_layers(preset, nn.Identity))
        wanted = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d | nn.Linear)]
        first, last = f"conv_fc.{wanted[0]}.weight", f"conv_fc.{wanted[-1]}.weight"
        if list(shapes) != [f"conv_fc.{i}.weight" for i in wanted]:
            continue
        if shapes[first].shape[1] == preset.channels:
            return replace(
                PRESETS[name],
                hidden=shapes[last].shape[1],
                width=shapes[first].shape[0],
                bias=last.replace("weight", "bias") in weights,
                num_classes=shapes[last].shape[0] // _VOTERS,
                T=kwargs.get("T", preset.T),
            )
    raise ValueError("not a PLIF network's checkpoint: its layers are those of none of the six")


FAMILY = Family(
    "plif_net",
    network=PLIFNet,
    presets=PRESETS,
    neuron=plif_neuron,
    official={"plif_net": Official(_config, lambda key: key)},
)
