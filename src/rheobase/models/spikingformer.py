"""Spikingformer: Spikformer with membranes in the shortcuts; and Spikingformer-CML.

Zhou et al. 2023, "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking
Neural Network", arXiv 2304.11954; "Enhancing the Performance of Transformer-based Spiking Neural
Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation" (CML), arXiv
2305.05954. Released code: zhouchenlin2096/Spikingformer and zhouchenlin2096/Spikingformer-CML.

Every branch begins with its neuron and ends in a membrane, so every convolution sees spikes. CML
pools the membranes before the neuron instead of the spikes behind it: the maximum of real numbers
has no ties, so gradients reach the pixel that caused it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from rheobase.layers import (
    ConvNormNeuron,
    MembraneBlock,
    NeuronConvNorm,
    over_time,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_sizes
from rheobase.models._names import depth_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official, Untold
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "Spikingformer", "SpikingformerConfig"]


@dataclass(frozen=True)
class SpikingformerConfig:
    """One Spikingformer.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 8.
        heads: attention heads; divides ``dim``.
        image_size: side of the images it is meant for; any multiple of ``patch_size`` works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        patch_size: pixels to a token's side: 1, 2, 4, 8 or 16; the last ``log2(patch_size)`` of
            the four stages of the stem halve the image.
        mlp_ratio: hidden width of the MLP over ``dim``.
        cml: pool membranes instead of spikes.
        tau: time constant of the paper's neuron (1.5, with CML 1.75, on event data).

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int
    dim: int
    heads: int
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    T: int = 4
    patch_size: int = 4
    mlp_ratio: float = 4.0
    cml: bool = False
    tau: float = 2.0

    def __post_init__(self) -> None:
        if self.patch_size not in (1, 2, 4, 8, 16):
            raise ValueError(f"patch_size must be 1, 2, 4, 8 or 16, got {self.patch_size}")
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=self.heads, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio, tau=self.tau,
        )  # fmt: skip

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"tau": self.tau}


def spikingformer_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF, tau 2, reset detached, sigmoid surrogate with alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class Stage(NeuronConvNorm):
    """Neuron, convolution, norm; with a pool behind the neuron, or before it (CML)."""

    def __init__(
        self, channels: int, width: int, neuron: nn.Module, *, pooled: bool, cml: bool
    ) -> None:
        super().__init__(channels, width, neuron, kernel_size=3)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else None
        self.cml = cml

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, channels, H, W]`` to membranes, halved by the pool."""
        if self.pool is None:
            return super().forward(x)
        if self.cml:
            return super().forward(over_time(x, self.pool))
        return over_time(over_time(self.neuron(x), self.pool), self.conv, self.norm)


class Stem(nn.Module):
    """Five convolutions to tokens, each but the first with its neuron before it."""

    def __init__(self, config: SpikingformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim = config.dim
        first_pooled = 4 - int(math.log2(config.patch_size))
        self.first = ConvNormNeuron(config.channels, dim // 8, nn.Identity(), kernel_size=3)
        self.stages = nn.ModuleList(
            Stage(a, b, make_neuron(), pooled=i >= first_pooled, cml=config.cml)
            for i, (a, b) in enumerate(pairwise([dim // 8, dim // 4, dim // 2, dim, dim]))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H / patch, W / patch]``."""
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return x


class Spikingformer(VisionNetwork):
    """Spikingformer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = Spikingformer(SpikingformerConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SpikingformerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spikingformer_neuron(**config.neuron_options)
        self.stem = Stem(config, make_neuron)
        hidden = int(config.dim * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            MembraneBlock(config.dim, config.heads, hidden, make_neuron)
            for _ in range(config.depth)
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``."""
        logits: Tensor = self.head(self.features(x).mean((-2, -1)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """What the head sees of a checked sequence: membranes ``[T, N, dim, H', W']``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


def _imagenet(dim: int) -> SpikingformerConfig:
    return SpikingformerConfig(8, dim, 8, image_size=224, num_classes=1000, patch_size=16)


def _cifar(depth: int, dim: int, num_classes: int) -> SpikingformerConfig:
    heads = 12 if dim == 384 and num_classes == 10 else 8
    return SpikingformerConfig(depth, dim, heads, num_classes=num_classes)


def _events(num_classes: int) -> SpikingformerConfig:
    return SpikingformerConfig(
        depth=2, dim=256, heads=16, image_size=128, channels=2, num_classes=num_classes,
        T=16, patch_size=16, tau=1.5,
    )  # fmt: skip


PRESETS: dict[str, SpikingformerConfig] = {
    "spikingformer_8_384": _imagenet(384),
    "spikingformer_8_512": _imagenet(512),
    "spikingformer_8_768": _imagenet(768),
    **{
        f"spikingformer_cifar{n}_{depth}_{dim}": _cifar(depth, dim, n)
        for n in (10, 100)
        for depth, dim in ((4, 256), (2, 384), (4, 384))
    },
    "spikingformer_cifar10dvs_2_256": _events(10),
    "spikingformer_dvs128_2_256": _events(11),
}
PRESETS |= {
    name.replace("spikingformer", "spikingformer_cml"): replace(
        config, cml=True, tau=1.75 if config.channels == 2 else 2.0
    )
    for name, config in PRESETS.items()
}


_SIGN = "patch_embed.proj_conv.weight"


def _rename(key: str) -> str | None:
    if re.match(r"block\.\d+\.norm[12]\.", key):  # layer norms, never used
        return None
    key = split_units(key)
    key = re.sub(r"embed\.(proj|block0)\.", "embed.first.", key)
    key = re.sub(r"embed\.(proj|block)(\d)\.", lambda m: f"embed.stages.{int(m[2]) - 1}.", key)
    key = key.replace("attn.attn.neuron", "attn.neuron").replace("attn.proj.neuron", "attn.input")
    key = re.sub(r"\.mlp([12])\.", r".fc\1.", key)
    return re.sub(r"^block\.", "blocks.", key).replace("patch_embed.", "stem.")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingformerConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "a Spikingformer", "stem.first.conv", "blocks.0.mlp.fc1.conv", "head")
    num_classes, dim = ours["head.weight"].shape
    shape = (depth_of(ours, "blocks"), dim, ours["stem.first.conv.weight"].shape[1], num_classes)
    known = [p for p in PRESETS.values() if (p.depth, p.dim, p.channels, p.num_classes) == shape]
    if not known and not {"num_heads", "patch_size"} <= kwargs.keys():
        raise Untold(
            "the weights are of no published size and do not tell the number of heads nor the "
            "size of a patch; give kwargs num_heads=..., patch_size=...",
            num_heads=1,
            patch_size=16,
        )
    like = known[0] if known else SpikingformerConfig(1, 8, 1, image_size=224, patch_size=16)
    return SpikingformerConfig(
        depth=shape[0],
        dim=dim,
        heads=kwargs.get("num_heads", like.heads),
        image_size=kwargs.get("img_size_h", like.image_size),
        channels=shape[2],
        num_classes=num_classes,
        T=kwargs.get("T", 4),
        patch_size=kwargs.get("patch_size", like.patch_size),
        mlp_ratio=ours["blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
        tau=1.5 if shape[2] == 2 else 2.0,
    )


def _plain_config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingformerConfig:
    config = _config(weights, kwargs)
    if config.patch_size == 4 and _SIGN in weights:  # as its files for larger images spell it
        raise ValueError(
            f"not a Spikingformer checkpoint: of small images, that with CML has {_SIGN}"
        )
    return config


def _cml_config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingformerConfig:
    config = _config(weights, kwargs)
    return replace(config, cml=True, tau=1.75 if config.channels == 2 else 2.0)


FAMILY = Family(
    "spikingformer",
    network=Spikingformer,
    presets=PRESETS,
    neuron=spikingformer_neuron,
    official={
        "spikingformer": Official(_plain_config, _rename),
        "spikingformer_cml": Official(
            _cml_config, _rename, mark="block.0.mlp.mlp1_conv.weight", sign=_SIGN
        ),
    },
)
