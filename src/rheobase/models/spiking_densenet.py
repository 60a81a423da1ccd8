"""Spiking DenseNet of LTMD: dense blocks that fire before they convolve, and a graded readout.

Wang et al. 2022, "LTMD: Learning Improvement of Spiking Neural Networks with Learnable Thresholding
Neurons and Moderate Dropout", NeurIPS 35, and its repository. The paper's neuron learns its
threshold, tanh(w) from w = 0.5 on, but not in the readout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.models._inputs import as_sequence
from rheobase.models._names import need_layers
from rheobase.models._neurons import stbp_neuron
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LTMD, neuron_factory

__all__ = [
    "FAMILY",
    "PRESETS",
    "ModerateDropout",
    "Readout",
    "SpikingDenseNet",
    "SpikingDenseNetConfig",
]

_THRESHOLD = math.tanh(0.5)


@dataclass(frozen=True)
class SpikingDenseNetConfig:
    """One spiking DenseNet.

    Args:
        depths: layers of each dense block.
        growth: channels that a layer adds.
        width: channels of the stem.
        bottleneck: width of a layer's 1x1 convolution over ``growth``.
        hidden: width of the readout's first layer.
        dropout: mean probability of the moderate dropout behind it.
        learn_threshold: whether the paper's neuron learns its threshold, or keeps that it starts
            from.
        fires_before_norm: the order in transitions; the released code registers its layers so
            that neurons come before norms there, against the order in dense layers.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images; the network halves it once a block.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: sizes that are not positive, or images too small.
    """

    depths: tuple[int, ...] = (12, 12, 24)
    growth: int = 32
    width: int = 256
    bottleneck: int = 4
    hidden: int = 256
    dropout: float = 0.2
    learn_threshold: bool = True
    fires_before_norm: bool = False
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 4

    def __post_init__(self) -> None:
        sizes = (self.growth, self.width, self.bottleneck, self.hidden, self.num_classes)
        if not self.depths or min(*self.depths, *sizes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.image_size < 2 ** len(self.depths):
            raise ValueError(
                f"image_size={self.image_size} is too small for {len(self.depths)} dense blocks"
            )

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"learn_threshold": self.learn_threshold}


def ltmd_neuron(*, learn_threshold: bool = True, **kwargs: Any) -> MakeNeuron:
    """LTMD's neuron, or what it is at its start: decay 0.25, threshold tanh(0.5), rectangular."""
    if learn_threshold:
        return neuron_factory(LTMD, **kwargs)
    return stbp_neuron(**({"v_threshold": _THRESHOLD} | kwargs))


class DenseLayer(nn.Module):
    """Norm, neuron, 1x1 convolution; norm, neuron, 3x3 convolution."""

    def __init__(
        self, channels: int, config: SpikingDenseNetConfig, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        width = config.bottleneck * config.growth
        self.norm1, self.sn1 = nn.BatchNorm2d(channels), make_neuron()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2, self.sn2 = nn.BatchNorm2d(width), make_neuron()
        self.conv2 = nn.Conv2d(width, config.growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, growth, H, W]``."""
        y = over_time(x, self.norm1, self.sn1, self.conv1, self.norm2)
        return over_time(self.sn2(y), self.conv2)


class DenseBlock(nn.Module):
    """Layers of which each sees the block's input and what every layer before it gave."""

    def __init__(
        self, depth: int, channels: int, config: SpikingDenseNetConfig, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(channels + i * config.growth, config, make_neuron) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, channels + depth * growth, H, W]``."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 2)
        return x


class Transition(nn.Module):
    """Norm, neuron (or the other way round), 1x1 convolution to half the channels, pooling."""

    def __init__(self, channels: int, fires_before_norm: bool, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.fires_before_norm = fires_before_norm
        self.norm, self.sn = nn.BatchNorm2d(channels), make_neuron()
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, channels / 2, H / 2, W / 2]``."""
        if self.fires_before_norm:
            return over_time(self.sn(x), self.norm, self.conv, self.pool)
        return over_time(x, self.norm, self.sn, self.conv, self.pool)


class Readout(nn.Module):
    r"""Linear layer whose neurons put out their membrane when they fire: :math:`h\,[h > \theta]`.

    Neighbouring neurons excite one another through a convolution over the layer. The gradient is
    that of the identity where :math:`h \ge \theta - 1/2`, and none through the reset.

    Args:
        fan_in: input features.
        width: output features.

    >>> Readout(8, 4)(torch.rand(5, 2, 8)).shape
    torch.Size([5, 2, 4])
    """

    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(fan_in, width)
        self.lateral = nn.Conv1d(1, 1, 5, padding=2, bias=False)
        self.sn = ltmd_neuron(learn_threshold=False, detach_reset=True)()
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, fan_in] -> [T, N, width]``, not negative."""
        current = over_time(x, self.fc)
        excited = over_time(current.unsqueeze(2), self.lateral).squeeze(2)
        spikes, h = self.sn(current + excited, tap="h")
        h = h.to(x.dtype) * (h >= _THRESHOLD - 0.5)
        out: Tensor = h - (h * (1.0 - spikes)).detach()
        return out


class ModerateDropout(nn.Module):
    r"""Dropout that spares what is strong: less active neurons are dropped more often.

    With d the mean over time and :math:`p = (d - \min d) / (\max d - \min d)`, a neuron is kept
    with probability :math:`1 - (1 - p)\,r / (1 - \bar p)`, in [0, 1], and divided by it; one mask
    for all steps. The mask counts as constant; the released code lets a gradient through the
    division.

    Args:
        r: the mean probability of being dropped.
    """

    def __init__(self, r: float) -> None:
        super().__init__()
        self.r = r

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, F]`` to the same shape."""
        if not self.training or self.r == 0.0:
            return x
        d = x.detach().mean(0)
        p = (d - d.min()) / (d.max() - d.min()).clamp_min(torch.finfo(d.dtype).tiny)
        keep = (1.0 - (1.0 - p) * self.r / (1.0 - p.mean())).clamp(0.0, 1.0)
        return x * (torch.bernoulli(keep) / keep.where(keep > 0.0, 1.0))


class SpikingDenseNet(nn.Module):
    """The spiking DenseNet of LTMD.

    The paper trains it on two draws of the dropout at once, with the divergence of both outputs as
    a second loss; that is for the training loop to do.

    Args:
        config: sizes.
        make_neuron: makes each neuron but the readout's; default LTMD's.

    >>> net = SpikingDenseNet(SpikingDenseNetConfig((2, 2), growth=4, width=8, hidden=16))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(
        self, config: SpikingDenseNetConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__()
        make_neuron = make_neuron or ltmd_neuron(**config.neuron_options)
        self.config = config
        self.T = config.T
        channels = config.width
        self.conv0 = nn.Conv2d(config.channels, channels, 3, padding=1, bias=False)
        self.norm0, self.sn0 = nn.BatchNorm2d(channels), make_neuron()
        self.pool0 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for i, depth in enumerate(config.depths):
            if i:
                self.blocks.append(Transition(channels, config.fires_before_norm, make_neuron))
                channels //= 2
            self.blocks.append(DenseBlock(depth, channels, config, make_neuron))
            channels += depth * config.growth
        self.norm, self.sn = nn.BatchNorm2d(channels), make_neuron()
        self.readout1 = Readout(channels, config.hidden)
        self.dropout = ModerateDropout(config.dropout)
        self.readout2 = Readout(config.hidden, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``, not negative.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        x = over_time(x, self.conv0, self.norm0, self.sn0)
        x = self.blocks(over_time(x, self.pool0))
        x = over_time(x, self.norm, self.sn).mean((-2, -1))
        outputs: Tensor = self.readout2(self.dropout(self.readout1(x)))
        return outputs


PRESETS: dict[str, SpikingDenseNetConfig] = {"spiking_densenet102": SpikingDenseNetConfig()}


def _rename(key: str) -> str | None:
    """The released code registers neurons two or three times, and its readout's never learn.

    >>> _rename("features.denseblock2.denselayer3.norm1.bn.weight")
    'blocks.2.layers.2.norm1.weight'
    """
    if re.match(r"outspike\d\.|spike\.|.*\.spike[AB]\.", key):
        return None
    key = re.sub(r"^spike1(?=\.|$)", "sn", key.removeprefix("features."))
    key = re.sub(r"denseblock(\d+)\.", lambda m: f"blocks.{2 * int(m[1]) - 2}.layers.", key)
    key = re.sub(r"denselayer(\d+)\.", lambda m: f"{int(m[1]) - 1}.", key)
    key = re.sub(r"transition(\d+)\.", lambda m: f"blocks.{2 * int(m[1]) - 1}.", key)
    key = re.sub(r"^classifier(\d)\.layer\.", r"readout\1.fc.", key)
    key = re.sub(r"^lateralfc(\d)\.layer\.", r"readout\1.lateral.", key)
    key = re.sub(r"\.(bn|layer)\.", ".", key.replace("norm5.", "norm."))
    return re.sub(r"(^|\.)spike(\d?)(?=\.|$)", r"\1sn\2", key)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingDenseNetConfig:
    """The config with these weights; T and dropout are not told by them.

    Weights without thresholds are of a network whose thresholds stay where they start.
    """
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "an LTMD DenseNet", "conv0", "blocks.0.layers.0.conv2", "readout2.fc")
    layers = {m.groups() for k in ours if (m := re.match(r"blocks\.(\d+)\.layers\.(\d+)", k or ""))}
    blocks = sorted({int(block) for block, _ in layers})
    growth, inner = ours["blocks.0.layers.0.conv2.weight"].shape[:2]
    return SpikingDenseNetConfig(
        depths=tuple(sum(block == str(i) for block, _ in layers) for i in blocks),
        growth=growth,
        width=ours["conv0.weight"].shape[0],
        bottleneck=inner // growth,
        hidden=ours["readout2.fc.weight"].shape[1],
        learn_threshold="sn0.w" in ours,
        fires_before_norm=True,
        num_classes=ours["readout2.fc.weight"].shape[0],
        channels=ours["conv0.weight"].shape[1],
        T=kwargs.get("T", 4),
    )


FAMILY = Family(
    "spiking_densenet",
    network=SpikingDenseNet,
    presets=PRESETS,
    neuron=ltmd_neuron,
    official={"spiking_densenet": Official(_config, _rename)},
)
