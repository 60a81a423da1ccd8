"""A spiking supernet without branches: one convolution a layer holds every kernel and every width.

Reconstruction of Yan et al. 2024, Neural Networks 173:106172, whose code is not public. From the
paper's idea: the choice of a layer is a mask over the weights of its largest convolution, and the
search minimises the loss and the synaptic operations together. Uncertain, and ours: the mask is a
straight-through sample of the Gumbel softmax over kernels (3, 5) and over quarters of the width.
`rheobase.experiments.search_supernet` searches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import over_time
from rheobase.layers.sequential import TimeSequential
from rheobase.models._inputs import as_sequence
from rheobase.models._neurons import tet_neuron
from rheobase.models.registry import Family, MakeNeuron

__all__ = ["FAMILY", "PRESETS", "SearchedNet", "SearchedNetConfig", "Supernet"]

KERNELS = (3, 5)
PARTS = 4  # a layer has 1, 2, 3 or 4 quarters of its width


@dataclass(frozen=True)
class SearchedNetConfig:
    """One network of the search space; for `Supernet`, the largest of it.

    Args:
        features: the layers in words: ``64k5`` is a 5x5 convolution of 64 channels, batch norm and
            neuron; ``M`` halves the image by its maximum.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images it is meant for; others work.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: an unknown layer, or sizes that are not positive.
    """

    features: str = "32k5 32k5 M 64k5 64k5 M 128k5"
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 4

    def __post_init__(self) -> None:
        if min(self.num_classes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if not self.convs:
            raise ValueError("features must hold a convolution, such as 64k3")

    @property
    def layers(self) -> list[tuple[int, int] | None]:
        """Width and kernel of each convolution; None is a pooling."""
        layers: list[tuple[int, int] | None] = []
        for word in self.features.split():
            match = re.fullmatch(r"([1-9]\d*)k([35])|M", word)
            if match is None:
                raise ValueError(
                    f"unknown layer {word!r} in features: it holds widths with a kernel of 3 or "
                    "5, such as 64k3, and M"
                )
            layers.append(None if word == "M" else (int(match[1]), int(match[2])))
        return layers

    @property
    def convs(self) -> list[tuple[int, int]]:
        """Width and kernel of each convolution."""
        return [layer for layer in self.layers if layer is not None]


class SearchedNet(nn.Module):
    """A network of the search space.

    Args:
        config: layers and sizes.
        make_neuron: makes each neuron; default TET's.

    >>> net = SearchedNet(SearchedNetConfig("8k3 M 12k5"))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SearchedNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        self.features = TimeSequential(*_layers(config, make_neuron or tet_neuron()))
        self.fc = nn.Linear(config.convs[-1][0], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        logits: Tensor = self.fc(self.features(x).mean((-2, -1)))
        return logits


def _layers(config: SearchedNetConfig, make_neuron: MakeNeuron) -> Iterator[nn.Module]:
    channels = config.channels
    for layer in config.layers:
        if layer is None:
            yield nn.MaxPool2d(2)
            continue
        width, k = layer
        yield nn.Conv2d(channels, width, k, padding=k // 2, bias=False)
        yield nn.BatchNorm2d(width)
        yield make_neuron()
        channels = width


class MaskedLayer(nn.Module):
    """A convolution whose kernel and width are chosen by masks over its weights and channels.

    Args:
        channels: input channels.
        width: the largest number of output channels, a multiple of four.
        kernel: the largest kernel; with 3 there is nothing to choose.
        make_neuron: makes the neuron.

    Raises:
        ValueError: ``width`` is not a multiple of four.
    """

    def __init__(self, channels: int, width: int, kernel: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        if width % PARTS:
            raise ValueError(f"widths of a supernet must be multiples of {PARTS}, got {width}")
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.sn = make_neuron()
        kernels = [k for k in KERNELS if k <= kernel]
        self.kernel_scores = nn.Parameter(torch.zeros(len(kernels)))
        self.width_scores = nn.Parameter(torch.zeros(PARTS))
        masks = [F.pad(torch.ones(k, k), 4 * [(kernel - k) // 2]) for k in kernels]
        self.kernel_masks: Tensor
        self.width_masks: Tensor
        self.register_buffer("kernel_masks", torch.stack(masks), persistent=False)
        parts = torch.arange(width) * PARTS // width
        self.register_buffer(
            "width_masks", (parts <= torch.arange(PARTS)[:, None]).float(), persistent=False
        )

    def forward(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, the number of channels kept, and synaptic operations an image.

        Args:
            x: ``[T, N, channels, H, W]``.
            kept: how many of these channels are, so that the choice behind it has its gradient.
        """
        kernel = _choose(self.kernel_scores, self.training) @ self.kernel_masks.flatten(1)
        width = _choose(self.width_scores, self.training) @ self.width_masks
        weight = self.conv.weight * kernel.view(self.conv.kernel_size)
        y = over_time(x, lambda z: F.conv2d(z, weight, padding=self.conv.padding), self.norm)
        spikes = self.sn(y) * width[:, None, None]
        # Every event at the input reaches the kernel's area in every channel that is kept.
        events = x.detach().count_nonzero() / x.shape[1] * (kept / kept.detach())
        return spikes, width.sum(), events * kernel.sum() * width.sum()

    @property
    def word(self) -> str:
        """The layer as it stands, as a word of `SearchedNetConfig.features`."""
        parts = int(self.width_scores.argmax()) + 1
        k = KERNELS[int(self.kernel_scores.argmax())]
        return f"{self.conv.out_channels * parts // PARTS}k{k}"


def _choose(scores: Tensor, training: bool) -> Tensor:
    """One hot: drawn while training, with the gradient of the softmax; else the likeliest."""
    if training:
        return F.gumbel_softmax(scores, hard=True)
    return F.one_hot(scores.argmax(), len(scores)).to(scores.dtype)


class Supernet(nn.Module):
    """Every network of the search space in the weights of its largest.

    Args:
        config: the largest network; its widths are multiples of four.
        make_neuron: makes each neuron; default TET's.

    >>> net = Supernet(SearchedNetConfig("8k5 M 16k5"))
    >>> logits, operations = net(torch.rand(2, 3, 8, 8))
    >>> logits.shape, net.found.features
    (torch.Size([4, 2, 10]), '2k3 M 4k3')
    """

    def __init__(self, config: SearchedNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or tet_neuron()
        self.config = config
        self.T = config.T
        self.layers = nn.ModuleList()
        channels = config.channels
        for layer in config.layers:
            if layer is None:
                self.layers.append(nn.MaxPool2d(2))
            else:
                self.layers.append(MaskedLayer(channels, *layer, make_neuron))
                channels = layer[0]
        self.fc = nn.Linear(channels, config.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every step, and synaptic operations an image (a scalar with gradient).

        In training the network is drawn from the masks' scores; else it is the likeliest.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        kept, operations = x.new_tensor(x.shape[2]), x.new_zeros(())
        for layer in self.layers:
            if isinstance(layer, MaskedLayer):
                x, kept, added = layer(x, kept)
                operations = operations + added
            else:
                x = over_time(x, layer)
        return self.fc(x.mean((-2, -1))), operations

    @property
    def architecture(self) -> list[nn.Parameter]:
        """The scores of the masks; all other parameters are weights."""
        return [p for name, p in self.named_parameters() if name.endswith("_scores")]

    @property
    def found(self) -> SearchedNetConfig:
        """The likeliest network, to be trained by itself."""
        words = (layer.word if isinstance(layer, MaskedLayer) else "M" for layer in self.layers)
        return replace(self.config, features=" ".join(words))


PRESETS: dict[str, SearchedNetConfig] = {"searched_net_cifar10": SearchedNetConfig()}

FAMILY = Family("snn_supernet", network=SearchedNet, presets=PRESETS, neuron=tet_neuron)
