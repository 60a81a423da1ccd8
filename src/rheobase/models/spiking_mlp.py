"""A plain spiking perceptron: linear layers with neurons between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.layers.sequential import TimeSequential
from rheobase.models._inputs import as_sequence
from rheobase.models.registry import Family, MakeNeuron
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "SpikingMLP", "SpikingMLPConfig"]


@dataclass(frozen=True)
class SpikingMLPConfig:
    """One perceptron.

    Args:
        hidden: width of each hidden layer.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.
        unit_length: divide the inputs of each layer but the first by their root mean square, so
            that a layer sees which neurons fired, not how many (Hinton 2022, forward-forward).
        spiking_output: whether the outputs are neurons too.
        by_column: give an image column by column, one a step, as sequential MNIST does: T is then
            the image's side.

    Raises:
        ValueError: sizes that are not positive.
    """

    hidden: tuple[int, ...] = (256,)
    num_classes: int = 10
    channels: int = 1
    image_size: int = 28
    T: int = 6
    unit_length: bool = False
    spiking_output: bool = False
    by_column: bool = False

    def __post_init__(self) -> None:
        if min(*self.hidden, self.num_classes, self.channels, self.image_size, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.by_column and self.image_size != self.T:
            raise ValueError(
                f"an image of {self.image_size} columns has as many steps, got T={self.T}"
            )


class UnitLength(nn.Module):
    """Divides features ``[N, C]`` by their root mean square; what is all 0 stays so."""

    def forward(self, x: Tensor) -> Tensor:
        """The features, of mean square 1."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class SpikingMLP(nn.Module):
    """A spiking perceptron.

    Args:
        config: sizes.
        make_neuron: makes each neuron.

    >>> SpikingMLP(SpikingMLPConfig((8,), image_size=4))(torch.rand(2, 1, 4, 4)).shape
    torch.Size([6, 2, 10])
    """

    def __init__(self, config: SpikingMLPConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        make = make_neuron or spiking_mlp_neuron()
        layers: list[nn.Module] = [nn.Flatten()]
        width = config.channels * config.image_size ** (1 if config.by_column else 2)
        for number, size in enumerate((*config.hidden, config.num_classes)):
            if number and config.unit_length:
                layers.append(UnitLength())
            layers += [nn.Linear(width, size), make()]
            width = size
        self.layers = TimeSequential(*layers if config.spiking_output else layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step ``[T, N, num_classes]``.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or size, or an empty input; a sequence ``by_column``.
        """
        config = self.config
        if config.by_column and x.dim() == 5:
            raise ValueError(f"columns are those of images [N, C, H, W], got {list(x.shape)}")
        x = as_sequence(x, steps=self.T, channels=config.channels, size=config.image_size)
        if config.by_column:
            x = x[0].permute(3, 0, 1, 2)  # [W, N, C, H]; the repetitions were all one image
        return self.layers(x)  # type: ignore[no-any-return]


def spiking_mlp_neuron(**options: Any) -> MakeNeuron:
    """The neuron of OTTT (Xiao et al. 2022): LIF, decay 1/2, soft reset, sigmoid surrogate."""
    own = {"tau": 2.0, "decay_input": False, "v_reset": None, "detach_reset": True}
    return neuron_factory(LIF, **(own | {"surrogate": Sigmoid(4.0)} | options))


PRESETS: dict[str, SpikingMLPConfig] = {
    "spiking_mlp_mnist": SpikingMLPConfig(),
    "forward_forward_mnist": SpikingMLPConfig((256, 256), unit_length=True),
}

FAMILY = Family("spiking_mlp", network=SpikingMLP, presets=PRESETS, neuron=spiking_mlp_neuron)
