"""tdBN ResNets: plain spiking ResNets whose norms know the threshold; ResNet-19 of CIFAR-10 first.

Zheng et al. 2021, "Going Deeper With Directly-Trained Larger Spiking Neural Networks", arXiv
2011.05280. A block adds the currents of its branch and its shortcut, each normalised to threshold
over the square root of 2, and fires after. ResNet-19 has three wide stages and a hidden linear
layer; ResNet-18, -34 and -50 are the usual ones, with a 3x3 stem for small images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.models._inputs import as_sequence
from rheobase.models._names import need_layers
from rheobase.models._neurons import neuron_of_channels, stbp_neuron
from rheobase.models._norms import NormName, Norms, check_norm
from rheobase.models.registry import Family, MakeNeuron, Official

__all__ = [
    "FAMILY",
    "IMAGENET",
    "LAYOUTS",
    "PRESETS",
    "BasicBlock",
    "Bottleneck",
    "CurrentResNet",
    "CurrentResNetConfig",
    "MakeNeuronOf",
    "read_config",
    "rename",
]


@dataclass(frozen=True)
class CurrentResNetConfig:
    """One ResNet whose blocks add currents.

    Args:
        depths: blocks of each stage; the first stage keeps the image's size, others halve it.
        widths: channels of each stage.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, whose output is four times as wide.
        hidden: width of the linear layer before the last; None: there is none.
        hidden_fires: whether that layer has a neuron.
        bias: whether linear layers have biases.
        stem: "3x3" for small images; "7x7", of stride 2 and with a max pooling, for ImageNet.
        stem_width: channels of the stem.
        stem_padding: of the 7x7 stem.
        first_stride: of the first stage; 2 takes the place of the stem's max pooling.
        norm: "tdbn", "batch" for plain batch norm (TET's code, under the name of tdBN), or one that
            knows time: "bntt", "tebn" or "tab".
        norm_shortcut: whether shortcuts that keep width and size are normalised too (GLIF).
        per_channel: tell each neuron the channels of its layer (see `neuron_of_channels`).
        spiking_output: whether the last layer has a neuron (the released code of tdBN: its outputs
            are firing rates), or not (TET).
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images it is meant for; others work.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: sizes or choices that do not fit.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool = False
    hidden: int | None = None
    hidden_fires: bool = True
    bias: bool = True
    stem: Literal["3x3", "7x7"] = "3x3"
    stem_width: int = 64
    stem_padding: int = 3
    first_stride: int = 1
    norm: NormName = "tdbn"
    norm_shortcut: bool = False
    per_channel: bool = False
    spiking_output: bool = True
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 6

    def __post_init__(self) -> None:
        if not self.depths or len(self.depths) != len(self.widths):
            raise ValueError(
                f"depths={self.depths} and widths={self.widths} give one number a stage each"
            )
        sizes = (*self.depths, *self.widths, self.stem_width, self.hidden or 1, self.num_classes)
        if min(*sizes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.stem not in ("3x3", "7x7"):
            raise ValueError(f'stem must be "3x3" or "7x7", got {self.stem!r}')
        if not 0 <= self.stem_padding <= 3:
            raise ValueError(f"stem_padding of 0 to 3, got {self.stem_padding}")
        check_norm(self.norm)

    @property
    def block(self) -> type[BasicBlock | Bottleneck]:
        """The class of its blocks."""
        return Bottleneck if self.bottleneck else BasicBlock


MakeNeuronOf = Callable[[int], nn.Module]  # of a layer of so many channels


class _Block(nn.Module):
    """The shortcut of a block, and its sum with the branch."""

    def __init__(
        self, channels: int, width: int, stride: int, norm: Norms, norm_shortcut: bool
    ) -> None:
        super().__init__()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                _conv(channels, width, 1, stride), norm(width, summed=True)
            )
        elif norm_shortcut:
            self.downsample = nn.Sequential(norm(width, summed=True))

    def add(self, current: Tensor, x: Tensor) -> Tensor:
        """The branch's current and that of the block's input ``x``."""
        return current + (x if self.downsample is None else over_time(x, *self.downsample))


class BasicBlock(_Block):
    """Two 3x3 convolutions.

    Args:
        channels: input channels of the block.
        width: channels of its convolutions.
        stride: 2 halves the image.
        norm: makes each norm.
        make_neuron: makes the neuron of a layer of so many channels.
        norm_shortcut: normalise a shortcut that keeps width and size too.
    """

    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        norm: Norms,
        make_neuron: MakeNeuronOf,
        norm_shortcut: bool = False,
    ) -> None:
        super().__init__(channels, width, stride, norm, norm_shortcut)
        self.conv1, self.bn1 = _conv(channels, width, 3, stride), norm(width)
        self.sn1 = make_neuron(width)
        self.conv2, self.bn2 = _conv(width, width, 3), norm(width, summed=True)
        self.sn2 = make_neuron(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H / stride, W / stride]``."""
        y = over_time(x, self.conv1, self.bn1, self.sn1)
        spikes: Tensor = self.sn2(self.add(over_time(y, self.conv2, self.bn2), x))
        return spikes


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions; the output has ``4 * width`` channels.

    Arguments are those of `BasicBlock`.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        norm: Norms,
        make_neuron: MakeNeuronOf,
        norm_shortcut: bool = False,
    ) -> None:
        super().__init__(channels, 4 * width, stride, norm, norm_shortcut)
        self.conv1, self.bn1 = _conv(channels, width, 1), norm(width)
        self.sn1 = make_neuron(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), norm(width)
        self.sn2 = make_neuron(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), norm(4 * width, summed=True)
        self.sn3 = make_neuron(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, 4 * width, H / stride, W / stride]``."""
        y = over_time(x, self.conv1, self.bn1, self.sn1)
        y = over_time(y, self.conv2, self.bn2, self.sn2)
        spikes: Tensor = self.sn3(self.add(over_time(y, self.conv3, self.bn3), x))
        return spikes


class CurrentResNet(nn.Module):
    """A spiking ResNet whose blocks add currents and fire after.

    Args:
        config: sizes and norm.
        make_neuron: makes each neuron; default the LIF of tdBN.

    >>> import torch
    >>> net = CurrentResNet(CurrentResNetConfig((1, 1), (8, 16), hidden=12))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([6, 2, 10])
    """

    def __init__(self, config: CurrentResNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        neuron = neuron_of_channels(make_neuron or stbp_neuron(), config.per_channel)
        norm = Norms(config.norm, config.T, neuron(config.stem_width))
        self.config = config
        self.T = config.T
        channels = config.stem_width
        if config.stem == "3x3":
            self.conv1 = _conv(config.channels, channels, 3)
        else:
            padding = config.stem_padding
            self.conv1 = nn.Conv2d(config.channels, channels, 7, 2, padding, bias=False)
        self.bn1 = norm(channels)
        self.sn1 = neuron(channels)
        pools = config.stem == "7x7" and config.first_stride == 1
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pools else None
        block = config.block
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), 1):
            stage = nn.Sequential()
            for j in range(depth):
                halving = 1 if j else (2 if i > 1 else config.first_stride)
                stage.append(block(channels, width, halving, norm, neuron, config.norm_shortcut))
                channels = width * block.expansion
            self.add_module(f"layer{i}", stage)
        if config.hidden is not None:
            self.fc1 = nn.Linear(channels, config.hidden, bias=config.bias)
            self.sn2 = neuron(config.hidden) if config.hidden_fires else nn.Identity()
        self.fc2 = nn.Linear(config.hidden or channels, config.num_classes, bias=config.bias)
        self.sn3 = neuron(config.num_classes) if config.spiking_output else nn.Identity()
        self._initialise()

    @property
    def stages(self) -> Iterator[nn.Module]:
        """Each stage's blocks."""
        return (self.get_submodule(f"layer{i + 1}") for i in range(len(self.config.depths)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        x = over_time(x, self.conv1, self.bn1, self.sn1)
        if self.maxpool is not None:
            x = over_time(x, self.maxpool)
        for stage in self.stages:
            x = stage(x)
        x = x.mean((-2, -1))
        if self.config.hidden is not None:
            x = self.sn2(self.fc1(x))
        outputs: Tensor = over_time(x, self.fc2, self.sn3)
        return outputs

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _conv(channels: int, width: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )


_USUAL = (64, 128, 256, 512)
LAYOUTS: dict[int, dict[str, Any]] = {
    18: {"depths": (2, 2, 2, 2), "widths": _USUAL},
    19: {"depths": (3, 3, 2), "widths": (128, 256, 512), "hidden": 256},
    34: {"depths": (3, 4, 6, 3), "widths": _USUAL},
    50: {"depths": (3, 4, 6, 3), "widths": _USUAL, "bottleneck": True},
}
IMAGENET: dict[str, Any] = {"stem": "7x7", "num_classes": 1000, "image_size": 224}

PRESETS: dict[str, CurrentResNetConfig] = {
    **{f"tdbn_resnet{n}_cifar10": CurrentResNetConfig(**LAYOUTS[n]) for n in LAYOUTS},
    **{f"tdbn_resnet{n}": CurrentResNetConfig(**LAYOUTS[n], **IMAGENET) for n in (18, 34, 50)},
}


def rename(key: str) -> str:
    """Our name of a parameter of the released code, which registers every layer two or more times.

    >>> rename("layer1.0.conv1_s.bn.weight"), rename("layer2.0.downsample.layer.weight")
    ('layer1.0.bn1.weight', 'layer2.0.downsample.0.weight')
    """
    key = re.sub(r"downsample\.layer\.(?:module\.)?", "downsample.0.", key)
    key = re.sub(r"downsample\.bn\.", "downsample.1.", key)
    key = re.sub(r"(conv|fc)(\d)_s\.layer\.(?:module\.)?", r"\1\2.", key)
    key = re.sub(r"conv(\d)_s\.bn\.", r"bn\1.", key)
    # TET wraps its batch norm once more.
    return re.sub(r"(bn\d|downsample\.1)\.(?:bn|seqbn\.module)\.", r"\1.", key)


def read_config(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any], **choices: Any
) -> CurrentResNetConfig:
    """The layout with these weights; T (default 6) and ``choices`` are not told by them."""
    ours = {rename(key): value for key, value in weights.items()}
    need_layers(ours, "a tdBN or TET ResNet", "conv1", "layer1.0.conv1", "fc2")
    stages = sorted({key.split(".")[0] for key in ours if key.startswith("layer")})
    depths = tuple(
        len({key.split(".")[1] for key in ours if key.startswith(stage)}) for stage in stages
    )
    return CurrentResNetConfig(
        depths=depths,
        widths=tuple(ours[f"{stage}.0.conv1.weight"].shape[0] for stage in stages),
        bottleneck="layer1.0.conv3.weight" in ours,
        hidden=ours["fc1.weight"].shape[0] if "fc1.weight" in ours else None,
        stem="3x3" if ours["conv1.weight"].shape[-1] == 3 else "7x7",
        num_classes=ours["fc2.weight"].shape[0],
        channels=ours["conv1.weight"].shape[1],
        T=kwargs.get("T", 6),
        **choices,
    )


FAMILY = Family(
    "tdbn_resnet",
    network=CurrentResNet,
    presets=PRESETS,
    neuron=stbp_neuron,
    official={"tdbn_resnet": Official(read_config, rename)},
)
