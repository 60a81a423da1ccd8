"""MS-ResNet: residual networks that add membrane currents; and Att-MS-ResNet with attention.

Hu et al. 2024, "Advancing Spiking Neural Networks Toward Deep Residual Learning", IEEE TNNLS, arXiv
2112.08954. A block fires first and then convolves, twice; its shortcut has no neuron, so currents
run through the whole network undisturbed. Att-MS-ResNet (Yao et al. 2023, "Attention Spiking Neural
Networks", arXiv 2209.13929) puts attention over channels and pixels at the end of every branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.layers import MultiDimensionalAttention, over_time
from rheobase.layers.dropout import DropoutOverTime
from rheobase.models._inputs import as_sequence
from rheobase.models._names import need_layers
from rheobase.models._neurons import stbp_neuron
from rheobase.models.registry import Family, MakeNeuron, Official

__all__ = ["FAMILY", "PRESETS", "Block", "MSResNet", "MSResNetConfig"]

_THRESHOLD = 0.5


@dataclass(frozen=True)
class MSResNetConfig:
    """One MS-ResNet.

    Args:
        depths: blocks of each stage; the first of each halves the image.
        width: channels of the first stage; each further stage doubles them.
        stem: "7x7" of stride 2; "deep", three 3x3 convolutions, the first of stride 2; "3x3" of
            stride 1, for small images.
        pooled_shortcut: shortcuts halve the image by its average, and not by their stride.
        attention: CSA at the end of every branch.
        dropout: probability before the last layer.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images it is meant for; others work.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: sizes that are not positive, or an unknown stem.
    """

    depths: tuple[int, ...]
    width: int = 64
    stem: Literal["7x7", "deep", "3x3"] = "7x7"
    pooled_shortcut: bool = False
    attention: bool = False
    dropout: float = 0.0
    num_classes: int = 1000
    channels: int = 3
    image_size: int = 224
    T: int = 6

    def __post_init__(self) -> None:
        sizes = (*self.depths, self.width, self.num_classes, self.channels, self.T)
        if not self.depths or min(sizes) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.stem not in ("7x7", "deep", "3x3"):
            raise ValueError(f'stem must be "7x7", "deep" or "3x3", got {self.stem!r}')


def ms_neuron(**kwargs: Any) -> MakeNeuron:
    """The papers' neuron: decay 0.25, threshold 0.5, reset detached, rectangular surrogate."""
    return stbp_neuron(**({"v_threshold": _THRESHOLD, "detach_reset": True} | kwargs))


class Block(nn.Module):
    """Neuron, convolution, norm, twice; then attention, if any; and the block's input added.

    Args:
        channels: input channels.
        width: output channels.
        stride: 2 halves the image.
        config: says how the shortcut halves it, and whether there is attention.
        make_neuron: makes each neuron.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        config: MSResNetConfig,
        make_neuron: MakeNeuron,
    ) -> None:
        super().__init__()
        self.sn1 = make_neuron()
        self.conv1, self.bn1 = _conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.sn2 = make_neuron()
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.attention = _attention(width) if config.attention else nn.Identity()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            pooled = config.pooled_shortcut
            conv = _conv(channels, width, 1, 1 if pooled else stride)
            layers = (nn.AvgPool2d(stride), conv) if pooled else (conv,)
            self.downsample = nn.Sequential(*layers, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, N, channels, H, W] -> [T, N, width, H / stride, W / stride]``."""
        y = over_time(self.sn1(x), self.conv1, self.bn1)
        y = over_time(self.sn2(y), self.conv2, self.bn2)
        if self.downsample is not None:
            x = over_time(x, *self.downsample)
        current: Tensor = self.attention(y) + x
        return current


class MSResNet(nn.Module):
    """MS-ResNet, or Att-MS-ResNet with ``attention=True``.

    With attention and more than one step it is not causal (see `MultiDimensionalAttention`).

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = MSResNet(MSResNetConfig((1, 1), width=8, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([6, 2, 10])
    """

    def __init__(self, config: MSResNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or ms_neuron()
        self.config = config
        self.T = config.T
        self.stem = _stem(config)
        self.stages = nn.Sequential()
        channels = config.width
        for i, depth in enumerate(config.depths):
            width = config.width * 2**i
            stage = nn.Sequential(Block(channels, width, 2, config, make_neuron))
            stage.extend(Block(width, width, 1, config, make_neuron) for _ in range(depth - 1))
            self.stages.append(stage)
            channels = width
        self.sn = make_neuron()
        self.dropout = DropoutOverTime(config.dropout)
        self.fc = nn.Linear(channels, config.num_classes)
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
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        x = self.sn(self.stages(over_time(x, *self.stem)))
        logits: Tensor = self.fc(self.dropout(x.mean((-2, -1))))
        return logits

    def _initialise(self) -> None:
        """Norms start at the threshold; those that end a branch at 0 (with attention, a fifth)."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, _THRESHOLD)
        for module in self.modules():
            if isinstance(module, Block):
                last = 0.2 * _THRESHOLD if self.config.attention else 0.0
                nn.init.constant_(module.bn2.weight, last)


def _stem(config: MSResNetConfig) -> nn.Sequential:
    width = config.width
    if config.stem == "deep":
        convs = [nn.Conv2d(config.channels, width, 3, stride=2, padding=1)]
        convs += [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
    elif config.stem == "7x7":
        convs = [_conv(config.channels, width, 7, 2)]
    else:
        convs = [_conv(config.channels, width, 3)]
    return nn.Sequential(*convs, nn.BatchNorm2d(width))


def _attention(width: int) -> MultiDimensionalAttention:
    """Over channels, then over pixels."""
    return MultiDimensionalAttention("CSA", channels=width, c_ratio=8)


def _conv(channels: int, width: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels, width, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )


_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 104: (3, 8, 32, 8)}
_ATTENTION: dict[str, Any] = {
    "pooled_shortcut": True, "attention": True, "dropout": 0.2, "T": 1,
}  # fmt: skip

PRESETS: dict[str, MSResNetConfig] = {
    "ms_resnet18": MSResNetConfig(_DEPTHS[18]),
    "ms_resnet34": MSResNetConfig(_DEPTHS[34]),
    "ms_resnet104": MSResNetConfig(
        _DEPTHS[104], stem="deep", pooled_shortcut=True, dropout=0.2, T=5
    ),
    **{f"att_ms_resnet{n}": MSResNetConfig(depths, **_ATTENTION) for n, depths in _DEPTHS.items()},
}

# Places in the released code's branches, and ours.
_BRANCH = {"0": "sn1", "1": "conv1", "2": "bn1", "3": "sn2", "4": "conv2", "5": "bn2"}
_ATTENTION_KEYS = {
    "ca.sharedMLP.0": "channel.squeeze", "ca.sharedMLP.2": "channel.excite", "sa.conv": "space",
}  # fmt: skip


def _rename(key: str) -> str | None:
    """The released code's names, or SpikingJelly's, as ours.

    >>> _rename("conv2_x.0.residual_function.5.bn.weight"), _rename("layer1.0.spike2")
    ('stages.0.0.bn2.weight', 'stages.0.0.sn2')
    """
    key = re.sub(r"^conv1\.", "stem.", key)
    key = re.sub(r"^conv(\d)_x\.", lambda m: f"stages.{int(m[1]) - 2}.", key)
    key = re.sub(r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.", key)
    key = re.sub(r"residual_function\.([0-5])(?=\.|$)", lambda m: _BRANCH[m[1]], key)
    key = re.sub(
        r"residual_function\.6\.attention\.(ca\.sharedMLP\.\d|sa\.conv)",
        lambda m: f"attention.{_ATTENTION_KEYS[m[1]]}",
        key,
    )
    key = key.replace(".shortcut.", ".downsample.").replace(".spike", ".sn")
    key = re.sub(r"^(head_lif|mem_update)$", "sn", re.sub(r"^head\.", "fc.", key))
    return re.sub(r"\.bn\.", ".", key)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> MSResNetConfig:
    """The config with these weights; T is not told by them, nor dropout, which is for training."""
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "an MS-ResNet", "stem.0", "stages.0.0.conv1", "fc")
    places = {tuple(key.split(".")[1:3]) for key in ours if key and key.startswith("stages.")}
    stages = sorted({int(stage) for stage, _ in places})
    first = ours["stem.0.weight"]
    deep = "stem.3.weight" in ours
    attention = "stages.0.0.attention.space.weight" in ours
    return MSResNetConfig(
        depths=tuple(sum(stage == str(i) for stage, _ in places) for i in stages),
        width=first.shape[0],
        stem="deep" if deep else "7x7" if first.shape[-1] == 7 else "3x3",
        pooled_shortcut="stages.0.0.downsample.2.weight" in ours,
        attention=attention,
        dropout=0.2 if deep or attention else 0.0,
        num_classes=ours["fc.weight"].shape[0],
        channels=first.shape[1],
        T=kwargs.get("T", 1 if attention else 6),
    )


FAMILY = Family(
    "ms_resnet",
    network=MSResNet,
    presets=PRESETS,
    neuron=ms_neuron,
    official={"ms_resnet": Official(_config, _rename)},
)
