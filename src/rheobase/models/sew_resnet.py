"""SEW-ResNet: spiking ResNets whose blocks join spikes with spikes; and plain Spiking-ResNet.

Fang et al. 2021, "Deep Residual Learning in Spiking Neural Networks", arXiv 2102.04159.
A SEW block joins the spikes of its branch with the spikes of its shortcut (ADD, AND or IAND), so
it can be the identity. A plain Spiking-ResNet block adds the two currents and fires after, so it
cannot. Parameters are named, and numbered, as in torchvision's ResNet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import over_time, sew_join
from rheobase.layers.residual import SEW_JOINS
from rheobase.models._inputs import as_sequence
from rheobase.models._names import need_layers
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import IF, neuron_factory
from rheobase.surrogate import ATan

__all__ = ["FAMILY", "PRESETS", "BasicBlock", "Bottleneck", "SEWResNet", "SEWResNetConfig"]

Connect = Literal["ADD", "AND", "IAND"] | None


@dataclass(frozen=True)
class SEWResNetConfig:
    """One SEW-ResNet, or plain Spiking-ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        connect: how branch and shortcut join, "ADD", "AND" or "IAND"; None: their currents are
            added before the neuron (plain Spiking-ResNet).
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images it is meant for; others work.
        T: time steps a static image is repeated for.
        zero_init_residual: start SEW blocks as the identity, as the published recipe does.

    Raises:
        ValueError: unknown depth or join.
    """

    depth: int
    connect: Connect = "ADD"
    num_classes: int = 1000
    channels: int = 3
    image_size: int = 224
    T: int = 4
    zero_init_residual: bool = True

    def __post_init__(self) -> None:
        if self.depth not in _STAGES:
            raise ValueError(f"depth must be one of {list(_STAGES)}, got {self.depth}")
        if self.connect is not None and self.connect not in SEW_JOINS:
            raise ValueError(unknown_name("SEW join", self.connect, SEW_JOINS))
        if min(self.num_classes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")


def sew_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: IF, reset detached, arctangent surrogate with alpha 2."""
    return neuron_factory(IF, **({"detach_reset": True, "surrogate": ATan(2.0)} | kwargs))


class ResidualBlock(nn.Module):
    """The shortcut of a block, and how the branch joins it."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, connect: Connect, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.connect = connect
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                _conv(channels, width, 1, stride), nn.BatchNorm2d(width)
            )
            if connect is not None:
                self.downsample_sn = make_neuron()

    def join(self, y: Tensor, *layers: nn.Module, neuron: nn.Module, x: Tensor) -> Tensor:
        """The branch's last layers, then fire and add (SEW) or add and fire (plain).

        ``x`` is the input of the block.
        """
        if self.connect is None:
            shortcut = x if self.downsample is None else over_time(x, *self.downsample)
            spikes: Tensor = neuron(over_time(y, *layers) + shortcut)
            return spikes
        if self.downsample is not None:
            x = over_time(x, *self.downsample, self.downsample_sn)
        return sew_join(over_time(y, *layers, neuron), x, self.connect)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (depth 18 and 34).

    Args:
        channels: input channels of the block.
        width: channels of its convolutions, and of its output.
        stride: 2 halves the image.
        connect: see `SEWResNetConfig`.
        make_neuron: makes each neuron.
    """

    def __init__(
        self, channels: int, width: int, stride: int, connect: Connect, make_neuron: MakeNeuron
    ) -> None:
        super().__init__(channels, width, stride, connect, make_neuron)
        self.conv1, self.bn1 = _conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.sn1 = make_neuron()
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.sn2 = make_neuron()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm before the join."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H / stride, W / stride]``."""
        y = over_time(x, self.conv1, self.bn1, self.sn1)
        return self.join(y, self.conv2, self.bn2, neuron=self.sn2, x=x)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (depth 50 and more); the output has ``4 * width`` channels.

    Arguments are those of `BasicBlock`.
    """

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, connect: Connect, make_neuron: MakeNeuron
    ) -> None:
        super().__init__(channels, 4 * width, stride, connect, make_neuron)
        self.conv1, self.bn1 = _conv(channels, width, 1), nn.BatchNorm2d(width)
        self.sn1 = make_neuron()
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.sn2 = make_neuron()
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.sn3 = make_neuron()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm before the join."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, 4 * width, H / stride, W / stride]``."""
        y = over_time(x, self.conv1, self.bn1, self.sn1)
        y = over_time(y, self.conv2, self.bn2, self.sn2)
        return self.join(y, self.conv3, self.bn3, neuron=self.sn3, x=x)


_STAGES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class SEWResNet(nn.Module):
    """SEW-ResNet, or plain Spiking-ResNet with ``connect=None``.

    Args:
        config: sizes and join.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = SEWResNet(SEWResNetConfig(depth=18, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SEWResNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or sew_neuron()
        self.config = config
        self.T = config.T
        self.conv1 = nn.Conv2d(config.channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.sn1 = make_neuron()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(config, 0, make_neuron)
        self.layer2 = _stage(config, 1, make_neuron)
        self.layer3 = _stage(config, 2, make_neuron)
        self.layer4 = _stage(config, 3, make_neuron)
        self.fc = nn.Linear(512 * _STAGES[config.depth][0].expansion, config.num_classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        x = self.features(as_sequence(x, steps=self.T, channels=self.config.channels))
        logits: Tensor = self.fc(x.mean((-2, -1)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """What the head sees of a sequence: ``[T, N, C, H / 32, W / 32]``, spikes or counts."""
        x = over_time(x, self.conv1, self.bn1, self.sn1)
        x = over_time(x, self.maxpool)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        connect = self.config.connect
        if not self.config.zero_init_residual or connect is None:
            return
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)
                # The branch is silent under ADD and IAND, and always fires under AND.
                nn.init.constant_(module.last_norm.bias, 1.0 if connect == "AND" else 0.0)


def _stage(config: SEWResNetConfig, i: int, make_neuron: MakeNeuron) -> nn.Sequential:
    """Stage i: blocks of width 64 * 2^i, of which the first halves the image if i > 0."""
    block, depths = _STAGES[config.depth]
    width = 64 * 2**i
    channels = 64 if i == 0 else width // 2 * block.expansion
    first = block(channels, width, 1 if i == 0 else 2, config.connect, make_neuron)
    rest = (
        block(width * block.expansion, width, 1, config.connect, make_neuron)
        for _ in range(depths[i] - 1)
    )
    return nn.Sequential(first, *rest)


def _conv(channels: int, width: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )


PRESETS: dict[str, SEWResNetConfig] = {
    **{f"sew_resnet{depth}": SEWResNetConfig(depth) for depth in _STAGES},
    **{f"spiking_resnet{depth}": SEWResNetConfig(depth, connect=None) for depth in _STAGES},
}


def _rename(key: str) -> str:
    """Ours are SpikingJelly's names; the paper's own code kept conv and norm in containers."""
    key = re.sub(r"conv(\d)\.(?:module\.)?0\.", r"conv\1.", key)
    key = re.sub(r"conv(\d)\.(?:module\.)?1\.", r"bn\1.", key)
    return re.sub(r"downsample\.0\.(?:module\.)?([01])\.", r"downsample.\1.", key)


def _config(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any], connect: Connect
) -> SEWResNetConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a ResNet", "conv1", "layer4.0.conv1", "fc")
    block = Bottleneck if "layer1.0.conv3.weight" in ours else BasicBlock
    depths = tuple(
        len({key.split(".")[1] for key in ours if key.startswith(f"layer{i}.")})
        for i in (1, 2, 3, 4)
    )
    depth = next((n for n, stages in _STAGES.items() if stages == (block, depths)), 0)
    return SEWResNetConfig(
        depth=depth,
        connect=connect,
        num_classes=ours["fc.weight"].shape[0],
        channels=ours["conv1.weight"].shape[1],
        T=kwargs.get("T", 4),
    )


def _sew_config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SEWResNetConfig:
    return _config(weights, kwargs, kwargs.get("cnf") or kwargs.get("connect_f") or "ADD")


def _plain_config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SEWResNetConfig:
    return _config(weights, kwargs, None)


FAMILY = Family(
    "sew_resnet",
    network=SEWResNet,
    presets=PRESETS,
    neuron=sew_neuron,
    official={
        "sew_resnet": Official(_sew_config, _rename),
        "spiking_resnet_direct": Official(_plain_config, _rename),
    },
)
