"""Spiking VGG: stacked convolutions, each followed by a neuron; and VGGSNN for event frames.

VGG-11 to -19 are the networks of Simonyan and Zisserman 2015 with neurons in place of ReLU
(Sengupta et al. 2019, Frontiers in Neuroscience 13:95), their parameters named and numbered as in
torchvision. The CIFAR-10 ones are those of BNTT (Kim and Panda 2021, arXiv 2010.01729; VGG-9 and
-11) and Diet-SNN (Rathi and Roy 2020, arXiv 2008.03658; VGG-16), VGGSNN that of TET (Deng et al.
2022, arXiv 2202.11946), used by LocalZO too, and the network of TA-SNN (Yao et al. 2021, arXiv
2107.11711) has attention over time before its neurons. All have
TET's neuron unless another is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.layers import BNTT, STSC, MultiDimensionalAttention, TemporalAttention, over_time
from rheobase.layers.dropout import DropoutOverTime
from rheobase.layers.sequential import TimeSequential
from rheobase.models._inputs import as_sequence, check_choice
from rheobase.models._names import need_layers
from rheobase.models._neurons import neuron_of_channels, tet_neuron
from rheobase.models._norms import NormName, Norms, check_norm
from rheobase.models.registry import Family, MakeNeuron, Official

__all__ = ["FAMILY", "PRESETS", "SpikingVGG", "SpikingVGGConfig"]


@dataclass(frozen=True)
class SpikingVGGConfig:
    """One VGG.

    Args:
        features: the layers in words: ``64`` is a 3x3 convolution of 64 channels and its neuron,
            ``64/2`` one of stride 2; ``M`` halves the image by its maximum, ``A`` by its average.
        hidden: widths of the linear layers with neurons before the last.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.
        grid: the image is averaged to this side before the linear layers, so images of other
            sizes work; None leaves it.
        norm: behind every convolution; "none", "batch", "tdbn", "bntt" (behind hidden linear layers
            too, as in its paper), "tebn" or "tab".
        attention: of every convolution's current, before it charges the neurons: "none", "TA",
            "CSA", "TCSA" (MA-SNN) or "STSC" (which takes the spikes before the convolution).
        per_channel: tell each neuron the channels of its layer (see `neuron_of_channels`).
        bias: whether convolutions and linear layers have biases.
        dropout: probability, behind every hidden layer; one mask for all steps.

    Raises:
        ValueError: an unknown layer, or sizes that do not fit.
    """

    features: str
    hidden: tuple[int, ...] = ()
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 4
    grid: int | None = None
    norm: NormName | Literal["none"] = "batch"
    attention: Literal["none", "TA", "CSA", "TCSA", "STSC"] = "none"
    per_channel: bool = False
    bias: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.num_classes, self.channels, self.T, self.image_size, *self.hidden)
        if min(sizes) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.norm != "none":
            check_norm(self.norm)
        check_choice("attention", self.attention, ("none", "TA", "CSA", "TCSA", "STSC"))
        if self.shape[1] < 1:
            raise ValueError(f"image_size={self.image_size} is too small for {self.features!r}")

    @property
    def layers(self) -> list[tuple[str, int, int]]:
        """``features`` as (kind, width, stride): ("C", 64, 2) for ``64/2``, ("M", 0, 2) for M."""
        layers = []
        for word in self.features.split():
            match = re.fullmatch(r"([1-9]\d*)(?:/([12]))?|[MA]", word)
            if match is None:
                raise ValueError(
                    f"unknown layer {word!r} in features: it holds widths, such as 64 or 64/2, "
                    "M and A"
                )
            width, stride = match.groups()
            layers.append(("C", int(width), int(stride or 1)) if width else (word, 0, 2))
        return layers

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and side of the image before the linear layers."""
        channels, side = self.channels, self.image_size
        for kind, width, stride in self.layers:
            channels = width or channels
            # A strided convolution of padding 1 rounds up, a pooling down.
            side = -(-side // stride) if kind == "C" else side // stride
        return channels, self.grid or side


class SpikingVGG(nn.Module):
    """A VGG of spiking neurons.

    Args:
        config: layers and sizes.
        make_neuron: makes each neuron; default the LIF of TET.

    >>> import torch
    >>> net = SpikingVGG(SpikingVGGConfig("8 M 16 A", hidden=(32,), image_size=8))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SpikingVGGConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or tet_neuron()
        self.config = config
        self.T = config.T
        self.features = TimeSequential(*_features(config, make_neuron))
        self.avgpool = nn.AdaptiveAvgPool2d(config.grid) if config.grid else nn.Identity()
        self.classifier = TimeSequential(*_classifier(config, make_neuron))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or size, or an empty input.
        """
        size = None if self.config.grid else self.config.image_size
        x = as_sequence(x, steps=self.T, channels=self.config.channels, size=size)
        x = over_time(self.features(x), self.avgpool, nn.Flatten())
        logits: Tensor = self.classifier(x)
        return logits


def _features(config: SpikingVGGConfig, make_neuron: MakeNeuron) -> Iterator[nn.Module]:
    neuron = neuron_of_channels(make_neuron, config.per_channel)
    norm = None if config.norm == "none" else Norms(config.norm, config.T, neuron(1))
    channels = config.channels
    for kind, width, stride in config.layers:
        if kind != "C":
            yield nn.MaxPool2d(2) if kind == "M" else nn.AvgPool2d(2)
            continue
        if config.attention == "STSC":
            yield STSC(channels)
        yield nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=config.bias)
        if norm is not None:
            yield norm(width)
        yield from _attention(config, width)
        yield neuron(width)
        channels = width


def _attention(config: SpikingVGGConfig, width: int) -> Iterator[nn.Module]:
    if config.attention == "TA":
        yield TemporalAttention(config.T, reduction=min(config.T, 5))
    elif config.attention in ("CSA", "TCSA"):
        yield MultiDimensionalAttention(
            config.attention, steps=config.T, channels=width, t_ratio=min(config.T, 5), c_ratio=4
        )


def _classifier(config: SpikingVGGConfig, make_neuron: MakeNeuron) -> Iterator[nn.Module]:
    neuron = neuron_of_channels(make_neuron, config.per_channel)
    channels, side = config.shape
    widths = (channels * side**2, *config.hidden)
    for fan_in, width in pairwise(widths):
        yield nn.Linear(fan_in, width, bias=config.bias)
        if config.norm == "bntt":
            yield BNTT(width, config.T)
        yield neuron(width)
        yield DropoutOverTime(config.dropout)
    yield nn.Linear(widths[-1], config.num_classes, bias=config.bias)


_IMAGENET = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
_VGGSNN = {
    "vggsnn": "64 128 A 256 256 A 512 512 A 512 512 A",
    "vggsnn_without_pooling": "64 128/2 256 256/2 512 512/2 512 512/2",
}


def _imagenet(depth: int, norm: bool) -> SpikingVGGConfig:
    hidden, grid = (4096, 4096), 7
    return SpikingVGGConfig(
        _IMAGENET[depth], hidden, 1000, image_size=224, grid=grid,
        norm="batch" if norm else "none", dropout=0.5,
    )  # fmt: skip


PRESETS: dict[str, SpikingVGGConfig] = {
    **{f"spiking_vgg{depth}": _imagenet(depth, norm=False) for depth in _IMAGENET},
    **{f"spiking_vgg{depth}_bn": _imagenet(depth, norm=True) for depth in _IMAGENET},
    "spiking_vgg9_cifar10": SpikingVGGConfig(
        "64 64 A 128 128 A 256 256 256 A", (1024,), norm="bntt", bias=False, T=25
    ),
    "spiking_vgg11_cifar10": SpikingVGGConfig(
        "64 A 128 A 256 256 A 512 512 A 512 512", (4096,), norm="bntt", bias=False, T=25, grid=1
    ),
    "spiking_vgg16_cifar10": SpikingVGGConfig(
        "64 64 A 128 128 A 256 256 256 A 512 512 512 A 512 512 512", (4096, 4096),
        norm="none", bias=False, T=5, dropout=0.2,
    ),
    "ta_snn_cifar10dvs": SpikingVGGConfig(
        "32 A 64 A 128 A 256 A 512 A A", (256,), channels=2, image_size=128, attention="TA", T=10
    ),
    **{
        name: SpikingVGGConfig(features, channels=2, image_size=48, T=10)
        for name, features in _VGGSNN.items()
    },
}  # fmt: skip


def _same(key: str) -> str:
    """SpikingJelly's VGGs are named and numbered as torchvision's, and ours."""
    return key


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingVGGConfig:
    """The ImageNet preset with these weights; T is not told by them."""
    last = "classifier.6.weight"
    if last not in weights:
        raise ValueError(f"not a VGG checkpoint: {last} is not in it")
    widths = [v.shape[0] for k, v in weights.items() if k.startswith("features") and v.dim() == 4]
    norm = any(key.endswith("running_mean") for key in weights)
    for depth, features in _IMAGENET.items():
        if [int(word) for word in features.split() if word != "M"] == widths:
            preset = _imagenet(depth, norm)
            return replace(preset, num_classes=weights[last].shape[0], T=kwargs.get("T", 4))
    raise ValueError(f"no VGG has convolutions of these widths: {widths}")


def _vggsnn_config(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any], name: str
) -> SpikingVGGConfig:
    need_layers(weights, "a VGGSNN", "features.0.fwd.module.0", "classifier.module")
    classes = weights["classifier.module.weight"].shape[0]
    return replace(PRESETS[name], num_classes=classes, T=kwargs.get("T", 10))


def _vggsnn_key(key: str, name: str) -> str:
    """TET numbers layers of convolution, norm and neuron where we number each of the three."""
    match = re.fullmatch(r"features\.(\d+)\.(?:fwd\.module\.(\d)|act)(.*)", key)
    if match is None:
        return key.replace("classifier.module.", "classifier.0.")
    before = _VGGSNN[name].split()[: int(match[1])]
    inside = 2 if match[2] is None else int(match[2])
    return f"features.{sum(1 if word == 'A' else 3 for word in before) + inside}{match[3]}"


FAMILY = Family(
    "spiking_vgg",
    network=SpikingVGG,
    presets=PRESETS,
    neuron=tet_neuron,
    official={
        "spiking_vgg": Official(_config, _same),
        **{
            name: Official(partial(_vggsnn_config, name=name), partial(_vggsnn_key, name=name))
            for name in _VGGSNN
        },
    },
)
