"""AutoSNN: five searched spiking blocks between max poolings; the network and the search space.

Na et al. 2022, "AutoSNN: Towards Energy-Efficient Spiking Neural Networks", arXiv 2201.12738, and
its repository. `AutoSNNSupernet` holds every candidate block at every place, and runs one path;
`rheobase.experiments.search_autosnn` trains and searches it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import over_time
from rheobase.layers.sequential import TimeSequential
from rheobase.layers.vote import vote
from rheobase.models._inputs import as_sequence
from rheobase.models._neurons import plif_neuron
from rheobase.models.registry import Family, MakeNeuron, Official

__all__ = ["BLOCKS", "FAMILY", "PLACES", "PRESETS", "AutoSNN", "AutoSNNConfig", "AutoSNNSupernet"]

BLOCKS = ("skip", "SCB_k3", "SCB_k5", "SRB_k3", "SRB_k5")

# Channels over the width of each place, where a block is searched; "M" halves the image.
_MACRO = (1, "M", 2, 2, "M", 4, 4, "M")
PLACES = sum(place != "M" for place in _MACRO)
_VOTERS = 10


@dataclass(frozen=True)
class AutoSNNConfig:
    """One AutoSNN.

    Args:
        blocks: five of `BLOCKS`, in words: "skip" (a 1x1 convolution where the width changes),
            or two convolutions of side k = 3 or 5, plain (SCB) or residual (SRB).
        width: channels of the stem; the stages have 1, 2 and 4 times as many.
        event_stem: quarter the image before the blocks, as for event frames of side 128.
        num_classes: outputs, each the vote of ten neurons.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: not five known blocks, or sizes that do not fit.
    """

    blocks: str
    width: int = 16
    event_stem: bool = False
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 8

    def __post_init__(self) -> None:
        for block in self.blocks.split():
            if block not in BLOCKS:
                raise ValueError(unknown_name("block", block, BLOCKS))
        if len(self.blocks.split()) != PLACES:
            raise ValueError(f"blocks must be {PLACES} words, got {self.blocks!r}")
        if min(self.width, self.num_classes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.side < 1:
            raise ValueError(f"image_size={self.image_size} is too small for the poolings")

    @property
    def side(self) -> int:
        """Side of the image before the linear layer."""
        return self.image_size // (32 if self.event_stem else 8)


class ConvBlock(nn.Module):
    """SCB and SRB: two convolutions with neurons; residual, the block's input joins the current.

    Args:
        channels: input channels.
        width: output channels.
        kernel_size: 3 or 5.
        residual: whether the input is added before the last neuron.
        make_neuron: makes each neuron.
    """

    def __init__(
        self, channels: int, width: int, kernel_size: int, residual: bool, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        k, p = kernel_size, kernel_size // 2
        self.residual = residual
        self.conv1 = nn.Conv2d(channels, width, k, padding=p, bias=False)
        self.bn1, self.sn1 = nn.BatchNorm2d(width), make_neuron()
        self.conv2 = nn.Conv2d(width, width, k, padding=p, bias=False)
        self.bn2, self.sn2 = nn.BatchNorm2d(width), make_neuron()
        self.downsample: nn.Sequential | None = None
        if residual and channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H, W]``."""
        y = over_time(x, self.conv1, self.bn1, self.sn1)
        y = over_time(y, self.conv2, self.bn2)
        if self.residual:
            y = y + (x if self.downsample is None else over_time(x, *self.downsample))
        spikes: Tensor = self.sn2(y)
        return spikes


def _block(name: str, channels: int, width: int, make_neuron: MakeNeuron) -> nn.Module:
    if name != "skip":
        kind, _, k = name.partition("_k")
        return ConvBlock(channels, width, int(k), kind == "SRB", make_neuron)
    if channels == width:
        return nn.Identity()
    conv = nn.Conv2d(channels, width, 1, bias=False)
    return TimeSequential(conv, nn.BatchNorm2d(width), make_neuron())


class _Network(nn.Module):
    """What the network and the supernet share: stem, poolings and classifier."""

    def __init__(self, config: AutoSNNConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        width, outputs = config.width, config.num_classes * _VOTERS
        self.stem = TimeSequential(*_unit(config.channels, width, make_neuron))
        if config.event_stem:
            self.stem.append(nn.MaxPool2d(2))
            self.stem.extend(_unit(width, width, make_neuron))
            self.stem.append(nn.MaxPool2d(2))
        self.pool = nn.MaxPool2d(2)
        fan_in = 4 * width * config.side**2
        self.fc = TimeSequential(
            nn.Flatten(), nn.Linear(fan_in, outputs, bias=False), make_neuron()
        )

    def run(self, x: Tensor, blocks: Sequence[nn.Module]) -> Tensor:
        """Votes of every step, through one block at each place."""
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, size=config.image_size)
        x = self.stem(x)
        searched = iter(blocks)
        for place in _MACRO:
            x = over_time(x, self.pool) if place == "M" else next(searched)(x)
        return vote(self.fc(x), _VOTERS)


def _unit(channels: int, width: int, make_neuron: MakeNeuron) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(width), make_neuron()]


def _widths(config: AutoSNNConfig) -> list[tuple[int, int]]:
    """Channels before and behind each place."""
    behind = [config.width * place for place in _MACRO if isinstance(place, int)]
    return list(zip([config.width, *behind], behind, strict=False))


class AutoSNN(_Network):
    """A network of the search space.

    Args:
        config: blocks and sizes.
        make_neuron: makes each neuron; default PLIF, as in the paper.

    >>> import torch
    >>> net = AutoSNN(AutoSNNConfig("SRB_k5 skip skip SCB_k3 SRB_k3", width=4, image_size=8))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([8, 2, 10])
    """

    def __init__(self, config: AutoSNNConfig, make_neuron: MakeNeuron | None = None) -> None:
        make_neuron = make_neuron or plif_neuron()
        super().__init__(config, make_neuron)
        self.blocks = nn.ModuleList(
            _block(name, *widths, make_neuron)
            for name, widths in zip(config.blocks.split(), _widths(config), strict=True)
        )

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
        return self.run(x, list(self.blocks))


class AutoSNNSupernet(_Network):
    """Every candidate block at every place, sharing stem and classifier; one path is run.

    Args:
        config: sizes; its blocks play no role.
        make_neuron: makes each neuron; default PLIF.
    """

    def __init__(self, config: AutoSNNConfig, make_neuron: MakeNeuron | None = None) -> None:
        make_neuron = make_neuron or plif_neuron()
        super().__init__(config, make_neuron)
        self.choices = nn.ModuleList(
            nn.ModuleDict({name: _block(name, *widths, make_neuron) for name in BLOCKS})
            for widths in _widths(config)
        )

    def forward(self, x: Tensor, blocks: str) -> Tensor:
        """What `AutoSNN.forward` gives, through the named blocks."""
        config = replace(self.config, blocks=blocks)
        path = zip(self.choices, config.blocks.split(), strict=True)
        return self.run(x, [choice.get_submodule(name) for choice, name in path])


# Found with the exponent -0.08 on the number of spikes; and with others, table 2 of the paper.
_FOUND = "SRB_k5 SRB_k5 skip SRB_k3 SRB_k5"
_OTHERS = {
    "0": "SRB_k5 SRB_k5 SRB_k5 SCB_k5 SRB_k5",
    "16": "SRB_k5 SRB_k5 skip SRB_k5 SRB_k5",
    "24": "skip SRB_k5 skip SCB_k5 SRB_k5",
}
_EVENTS: dict[str, Any] = {"event_stem": True, "channels": 2, "image_size": 128}

PRESETS: dict[str, AutoSNNConfig] = {
    **{f"autosnn_{width}": AutoSNNConfig(_FOUND, width) for width in (16, 32, 64, 128)},
    **{f"autosnn_16_lambda{name}": AutoSNNConfig(blocks) for name, blocks in _OTHERS.items()},
    "autosnn_16_cifar10dvs": AutoSNNConfig(_FOUND, **_EVENTS),
    "autosnn_16_dvs128gesture": AutoSNNConfig(_FOUND, **_EVENTS, num_classes=11),
}


def _rename(key: str) -> str:
    """The released code numbers poolings as layers too.

    >>> _rename("layers.5.spike_neuron_2.w"), _rename("conv_stem.0.weight")
    ('blocks.3.sn2.w', 'stem.0.weight')
    """
    key = re.sub(r"^spike_neuron_stem(?=\.|$)", "stem.2", re.sub(r"^conv_stem\.", "stem.", key))
    key = re.sub(r"^DVS_conv_1\.(\d)", lambda m: f"stem.{4 + int(m[1])}", key)
    places = [i for i, place in enumerate(_MACRO) if place != "M"]
    key = re.sub(r"^layers\.(\d)", lambda m: f"blocks.{places.index(int(m[1]))}", key)
    key = re.sub(r"\.spike_neuron_(\d)", r".sn\1", key)
    for i, name in enumerate(("conv", "bn", "spike_neuron")):
        key = re.sub(rf"^(blocks\.\d)\.{name}(?=\.|$)", rf"\1.{i}", key)
    return key


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> AutoSNNConfig:
    """The config with these weights; SCB and SRB of one width look alike: give ``arch``."""
    if "arch" not in kwargs:
        raise ValueError("weights do not tell every block: give arch=['SRB_k5', ...]")
    ours = {_rename(key): value for key, value in weights.items()}
    if "stem.0.weight" not in ours or "fc.1.weight" not in ours:
        raise ValueError("not an AutoSNN checkpoint: it has no conv_stem.0 or no fc.1")
    width, channels = ours["stem.0.weight"].shape[:2]
    outputs, fan_in = ours["fc.1.weight"].shape
    names = [name.replace("skip_connect", "skip") for name in kwargs["arch"]]
    event_stem = "stem.4.weight" in ours
    return AutoSNNConfig(
        blocks=" ".join(name for name in names if name in BLOCKS),
        width=width,
        event_stem=event_stem,
        num_classes=outputs // _VOTERS,
        channels=channels,
        image_size=round((fan_in / (4 * width)) ** 0.5) * (32 if event_stem else 8),
        T=kwargs.get("T", 8),
    )


FAMILY = Family(
    "autosnn",
    network=AutoSNN,
    presets=PRESETS,
    neuron=plif_neuron,
    official={"autosnn": Official(_config, _rename)},
)
