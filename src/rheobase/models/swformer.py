"""SWformer: a spiking transformer that mixes tokens by wavelets instead of attention.

Fang et al. 2024, "Spiking Wavelet Transformer", arXiv 2403.11138. The released code
(bic-L/Spiking-Wavelet-Transformer) has three files, for ImageNet, CIFAR and event data. Those for
images are one graph; events have another one, with max-pools between, in which the convolutions
stand behind the wavelets and not beside them.

Where code and paper differ: neurons of the transform fire +1 at their threshold; the code never
passes the one for -1 on, which stays at -0.501. ``compat="official"`` does so; without it the two
are symmetric. The published 23.14 million parameters of 8-512 are those of channels mixed in 4
groups ("swformer_8_512"); the released settings say 2, as do the names of the checkpoints
("swformer_8_512_fl2", 27.60 million). A checkpoint tells its groups.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import (
    MembraneMlp,
    MembraneStem,
    haar,
    inverse_haar,
    over_time,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice, check_divides, check_sizes
from rheobase.models._names import depth_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikformer import spikformer_neuron
from rheobase.neurons import MagnitudeResetTernaryIF
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "Block", "SWformer", "SWformerConfig", "WaveletMixer"]


@dataclass(frozen=True)
class SWformerConfig:
    """One SWformer.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 8.
        groups: channels mix in the wavelet domain within so many groups; divides ``dim``.
        image_size: side of the images; ``image_size / patch_size`` is a power of two.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        patch_size: pixels to a token's side; the last ``log2(patch_size)`` of the four stages of
            the stem halve the image.
        mlp_ratio: hidden width of the MLP over ``dim``.
        graph: "image" or "event", see the module.
        head_neuron: whether a neuron stands before the classifier (ImageNet).
        haar_threshold: at which membrane the neurons of the transform fire +1.
        compat: "official": those fire -1 at -0.501 whatever ``haar_threshold`` is, as in the
            released code; None: at minus ``haar_threshold``.

    Raises:
        ValueError: sizes that do not divide each other, or a token grid that is no power of two.
    """

    depth: int
    dim: int
    groups: int = 16
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    T: int = 4
    patch_size: int = 4
    mlp_ratio: float = 4.0
    graph: Literal["image", "event"] = "image"
    head_neuron: bool = False
    haar_threshold: float = 1.0
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("patch_size", self.patch_size, (1, 2, 4, 8, 16))
        check_choice("graph", self.graph, ("image", "event"))
        check_choice("compat", self.compat, (None, "official"))
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=1, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, groups=self.groups,
            channels=self.channels, num_classes=self.num_classes, T=self.T,
            mlp_ratio=self.mlp_ratio, haar_threshold=self.haar_threshold,
        )  # fmt: skip
        check_divides("groups", self.groups, self.dim, f"dim={self.dim}")
        side = self.image_size // self.patch_size
        if side & (side - 1):
            fitting = self.patch_size << side.bit_length()
            raise ValueError(
                f"the wavelets need a token grid whose side is a power of two; image_size="
                f"{self.image_size} over patch_size={self.patch_size} is {side}; resize the images "
                f"to {fitting // 2} or {fitting}"
            )

    def ternary(self) -> MagnitudeResetTernaryIF:
        """A neuron of the transform; its reset is not detached."""
        negative = 0.501 if self.compat == "official" else self.haar_threshold
        return MagnitudeResetTernaryIF(
            v_threshold=self.haar_threshold, v_negative=negative, surrogate=Sigmoid(4.0)
        )


class SharedConv2d(nn.Conv2d):
    """A convolution whose few channels are applied to every group of the input's channels."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, groups * channels, H, W]`` to the same shape."""
        y = super().forward(input.reshape(-1, self.in_channels, *input.shape[2:]))
        return y.reshape(input.shape)


class WaveletMixer(nn.Module):
    """FATM, the frequency-aware token mixer: a Haar transform of the token grid and back.

    Between the two, channels mix within their group. Source: arXiv 2403.11138, section 4.
    """

    def __init__(self, config: SWformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, width = config.dim, config.dim // config.groups
        self.graph = config.graph
        self.neuron = make_neuron()
        self.forward_columns = config.ternary()
        self.forward_norm = nn.BatchNorm2d(dim)
        self.wavelet_neuron = make_neuron()
        self.weight = nn.Parameter(0.02 * torch.randn(config.groups, width, width))
        self.mixed_norm = nn.BatchNorm2d(dim)
        self.inverse_rows = config.ternary()
        self.inverse_columns = config.ternary()
        self.inverse_norm = nn.BatchNorm2d(dim)
        self.conv1, self.norm1 = SharedConv2d(width, width, 1), nn.BatchNorm2d(dim)
        self.conv2, self.norm2 = SharedConv2d(width, width, 3, padding=1), nn.BatchNorm2d(dim)
        self.erode = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to a current of the same shape."""
        x = self.neuron(x)
        if self.graph == "event":
            return self._local(over_time(self._wavelets(over_time(x, self.erode)), self.erode))
        return self._wavelets(x) + self._local(x)

    def _wavelets(self, x: Tensor) -> Tensor:
        y = haar(self.forward_columns(haar(x, -1)), -2)
        y = over_time(y, self.forward_norm, self.wavelet_neuron)
        y = over_time(self._mix_channels(y), self.mixed_norm)
        y = inverse_haar(self.inverse_rows(y), -1)
        y = inverse_haar(self.inverse_columns(y), -2)
        return over_time(y, self.inverse_norm)

    def _mix_channels(self, x: Tensor) -> Tensor:
        grouped = x.reshape(*x.shape[:2], *self.weight.shape[:2], -1)
        return (self.weight.mT @ grouped).reshape(x.shape)

    def _local(self, x: Tensor) -> Tensor:
        return over_time(x, self.conv1, self.norm1) + over_time(x, self.conv2, self.norm2)


class Block(nn.Module):
    """Wavelets, then MLP, each added to a stream of membrane currents."""

    def __init__(self, config: SWformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.mixer = WaveletMixer(config, make_neuron)
        self.mlp = MembraneMlp(config.dim, int(config.dim * config.mlp_ratio), make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = x + self.mixer(x)
        y: Tensor = x + self.mlp(x)
        return y


class SWformer(VisionNetwork):
    """Spiking Wavelet Transformer.

    Args:
        config: sizes and graph.
        make_neuron: makes each neuron but those of the wavelet transform; default the paper's.

    >>> import torch
    >>> net = SWformer(SWformerConfig(depth=1, dim=16, groups=4))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SWformerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spikformer_neuron()
        self.stem = MembraneStem(
            config.channels, config.dim, config.patch_size, make_neuron, position=make_neuron()
        )
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.head_neuron = make_neuron() if config.head_neuron else nn.Identity()
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a sequence ``[T, N, C, H, W]``: ``[T, N, num_classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.head_neuron(x.mean((-2, -1))))
        return logits


def _imagenet(depth: int, groups: int) -> SWformerConfig:
    return SWformerConfig(
        depth, dim=512, groups=groups, image_size=256, num_classes=1000, patch_size=16,
        head_neuron=True,
    )  # fmt: skip


PRESETS: dict[str, SWformerConfig] = {
    # The published sizes (23.14 M for 8-512) are those of 4 groups; the released settings say 2.
    "swformer_6_512": _imagenet(6, 4),
    "swformer_8_512": _imagenet(8, 4),
    **{
        f"swformer_{depth}_512_fl{groups}": _imagenet(depth, groups)
        for depth in (6, 8)
        for groups in (2, 16)
    },
    **{
        f"swformer_cifar{n}_4_{dim}": SWformerConfig(4, dim, num_classes=n)
        for n in (10, 100)
        for dim in (384, 512)
    },
    "swformer_cifar10dvs_2_256": SWformerConfig(
        depth=2, dim=256, groups=4, image_size=128, channels=2, T=16, patch_size=16, graph="event"
    ),
}


_MIXER = {
    "x_neuron": "neuron",
    "haar_forward.col_haar_neuron": "forward_columns",
    "haar_forward_bn": "forward_norm",
    "haar_neuron": "wavelet_neuron",
    "haar_weight": "weight",
    "haar_bn": "mixed_norm",
    "haar_multiply_bn": "mixed_norm",
    "haar_inverse.row_haar_neuron": "inverse_rows",
    "haar_inverse.col_haar_neuron": "inverse_columns",
    "haar_inverse_bn": "inverse_norm",
    "conv1": "conv1",
    "conv1_bn": "norm1",
    "conv2": "conv2",
    "conv2_bn": "norm2",
}
_MIXER_KEY = re.compile(rf"block\.(\d+)\.(?:attn|mixer)\.({'|'.join(_MIXER)})(?=\.|$)")


def _rename(key: str) -> str:
    if match := _MIXER_KEY.match(key):
        return f"blocks.{match[1]}.mixer.{_MIXER[match[2]]}{key[match.end() :]}"
    key = split_units(key.replace("patch_embed.proj_lif3", "patch_embed.rpe_lif"))
    key = re.sub(r"^block\.", "blocks.", key).replace("head.neuron", "head_neuron")
    key = re.sub(r"^patch_embed\.proj(\d?)\.", lambda m: f"stem.stages.{m[1] or 0}.", key)
    return key.replace("patch_embed.rpe.", "stem.position.")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SWformerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "an SWformer", "stem.stages.0.conv", "blocks.0.mixer", "head")
    num_classes, dim = ours["head.weight"].shape
    channels = ours["stem.stages.0.conv.weight"].shape[1]
    # Of the three released files, only that for ImageNet calls its mixer attn.
    imagenet = "block.0.attn.haar_weight" in weights
    events = channels == 2 and not imagenet
    pooled = str(kwargs.get("pooling_stat", ""))
    if "10" in pooled:
        raise ValueError(f"pooling_stat must pool in the last stages, as 0011, got {pooled!r}")
    patch_size = kwargs.get("patch_size", 16 if imagenet or events else 4)
    return SWformerConfig(
        depth=depth_of(ours, "blocks"),
        dim=dim,
        groups=ours["blocks.0.mixer.weight"].shape[0],
        image_size=kwargs.get("img_size_h", 256 if imagenet else 128 if events else 32),
        channels=channels,
        num_classes=num_classes,
        T=kwargs.get("T", 16 if events else 4),
        patch_size=2 ** pooled.count("1") if pooled else patch_size,
        mlp_ratio=ours["blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
        graph="event" if events else "image",
        head_neuron=imagenet,
        haar_threshold=kwargs.get("haar_vth", 1.0),
    )


FAMILY = Family(
    "swformer",
    network=SWformer,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={"swformer": Official(_config, _rename)},
)
