"""Spikformer: the first spiking transformer trained directly.

Zhou et al. 2023, "Spikformer: When Spiking Neural Network Meets Transformer", arXiv 2209.15425.
The released code (ZK-Zhou/spikformer) is three different files, for ImageNet, CIFAR and event
data. They are one network here, ``[T, N, C, H, W]`` from end to end: a layer on tokens is a 1x1
convolution. What differs between them stands in the config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.layers import (
    ConvNormNeuron,
    SpikingBlock,
    SpikingMlp,
    SpikingSelfAttention,
    over_time,
    sew_join,
)
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import depth_of, heads_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "Block", "Spikformer", "SpikformerConfig", "Stem"]


@dataclass(frozen=True)
class SpikformerConfig:
    """One Spikformer.

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
        scale: factor of the attention product (1/4 in the CIFAR10-DVS release).
        cml: pool membranes, between batch norm and neuron, instead of spikes: the order of
            Spikingformer-CML (Zhou et al. 2023, arXiv 2305.05954).
        token_layers: "linear" as in the CIFAR release (Q, K and V have biases; weights drawn
            from a normal of deviation 0.02), or "conv" (no such biases, PyTorch's own draw).

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
    scale: float = 0.125
    cml: bool = False
    token_layers: Literal["linear", "conv"] = "conv"

    def __post_init__(self) -> None:
        check_choice("patch_size", self.patch_size, (1, 2, 4, 8, 16))
        check_choice("token_layers", self.token_layers, ("linear", "conv"))
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=self.heads, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip


def spikformer_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF, tau 2, reset detached, sigmoid surrogate with alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class Stem(nn.Module):
    """Spiking patch splitting: four convolutions to tokens, and a relative position embedding."""

    def __init__(self, config: SpikformerConfig, make_neuron: Callable[..., nn.Module]) -> None:
        super().__init__()
        dim = config.dim
        widths = pairwise([config.channels, dim // 8, dim // 4, dim // 2, dim])
        halves = [stage >= 4 - int(math.log2(config.patch_size)) for stage in range(4)]
        self.stages = nn.ModuleList(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3, pool=config.cml and half)
            for (a, b), half in zip(widths, halves, strict=True)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.pools_spikes = [half and not config.cml for half in halves]
        self.position = ConvNormNeuron(dim, dim, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, dim, H / patch, W / patch]``, of 0, 1 and 2."""
        for stage, pools in zip(self.stages, self.pools_spikes, strict=True):
            x = over_time(stage(x), self.pool) if pools else stage(x)
        return sew_join(self.position(x), x, "ADD")


class Block(SpikingBlock):
    """Spiking self-attention and MLP of a config."""

    attn: SpikingSelfAttention

    def __init__(self, config: SpikformerConfig, make_neuron: Callable[..., nn.Module]) -> None:
        bias = config.token_layers == "linear"
        super().__init__(
            SpikingSelfAttention(
                config.dim, config.heads, make_neuron, scale=config.scale, qkv_bias=bias
            ),
            SpikingMlp(config.dim, int(config.dim * config.mlp_ratio), make_neuron),
        )


class Spikformer(VisionNetwork):
    """Spikformer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = Spikformer(SpikformerConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SpikformerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spikformer_neuron()
        self.stem: nn.Module = Stem(config, make_neuron)
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise(self, config)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """The attention map of every block, each ``[T, N, heads, tokens, tokens]``."""
        x = self.stem(self.checked(x))
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attn.attention(x))
            x = block(x)
        return maps


def initialise(net: nn.Module, config: SpikformerConfig) -> None:
    """The released initialisation: truncated normal for what is ``nn.Linear`` there."""
    for module in net.modules():
        if isinstance(module, nn.Linear) or (
            config.token_layers == "linear"
            and isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
        ):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _imagenet(depth: int, dim: int) -> SpikformerConfig:
    # 8 heads for every width: the released scripts say so (elsewhere 12 is said of 768).
    return SpikformerConfig(depth, dim, 8, image_size=224, num_classes=1000, patch_size=16)


def _cifar(depth: int, dim: int, num_classes: int) -> SpikformerConfig:
    return SpikformerConfig(
        depth, dim, heads=dim // 32, num_classes=num_classes, token_layers="linear"
    )


def _events(num_classes: int) -> SpikformerConfig:
    return SpikformerConfig(
        depth=2, dim=256, heads=16, image_size=128, channels=2, num_classes=num_classes,
        T=16, patch_size=16, scale=0.25,
    )  # fmt: skip


PRESETS: dict[str, SpikformerConfig] = {
    "spikformer_8_384": _imagenet(8, 384),
    "spikformer_6_512": _imagenet(6, 512),
    "spikformer_8_512": _imagenet(8, 512),
    "spikformer_10_512": _imagenet(10, 512),
    "spikformer_8_768": _imagenet(8, 768),
    **{
        f"spikformer_cifar{n}_{depth}_{dim}": _cifar(depth, dim, n)
        for n in (10, 100)
        for depth, dim in ((4, 256), (2, 384), (4, 384))
    },
    "spikformer_cifar10dvs_2_256": _events(10),
    "spikformer_dvs128_2_256": _events(11),
    # Not published: a small one for 28 x 28 digits.
    "spikformer_mnist_2_64": SpikformerConfig(
        depth=2, dim=64, heads=4, image_size=28, channels=1, token_layers="linear"
    ),
}


PRESETS |= {
    f"cml_{name}": replace(PRESETS[name], cml=True)
    for name in PRESETS
    if name not in ("spikformer_6_512", "spikformer_10_512", "spikformer_mnist_2_64")
}


# Released checkpoints. ``block1_conv`` ... is how the repository's first model.py spelt the stem.
_NEVER_USED = re.compile(r"^(block\.\d+\.norm[12]|norm|pos_embed)(\.|$)")


def _rename(key: str) -> str | None:
    if _NEVER_USED.match(key):
        return None
    key = split_units(key)
    key = re.sub(r"embed\.proj(\d?)\.", lambda m: f"embed.stages.{m[1] or 0}.", key)
    key = re.sub(r"embed\.block(\d)\.", lambda m: f"embed.stages.{int(m[1]) - 1}.", key)
    key = key.replace("embed.rpe.", "embed.position.").replace("attn.attn.", "attn.")
    return re.sub(r"^block\.", "blocks.", key).replace("patch_embed.", "stem.")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikformerConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "a Spikformer", "stem.stages.0.conv", "blocks.0.mlp.fc1.conv", "head")
    dim = ours["head.weight"].shape[1]
    depth = depth_of(ours, "blocks")
    cifar = "blocks.0.attn.q.conv.bias" in ours or "patch_embed.block1_conv.weight" in weights
    patch_size = 4 if cifar else 16
    known = [
        p for p in PRESETS.values() if (p.dim, p.depth, p.patch_size) == (dim, depth, patch_size)
    ]
    return SpikformerConfig(
        depth=depth,
        dim=dim,
        heads=heads_of(kwargs, [p.heads for p in known]),
        image_size=kwargs.get(
            "img_size_h", 32 if cifar else 128 if "pos_embed" in weights else 224
        ),
        channels=ours["stem.stages.0.conv.weight"].shape[1],
        num_classes=ours["head.weight"].shape[0],
        T=kwargs.get("T", 4),
        patch_size=patch_size,
        mlp_ratio=ours["blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
        scale=0.25 if "pos_embed" in weights else 0.125,
        token_layers="linear" if "blocks.0.attn.q.conv.bias" in ours else "conv",
    )


def _cml_config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikformerConfig:
    return replace(_config(weights, kwargs), cml=True)


FAMILY = Family(
    "spikformer",
    network=Spikformer,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={
        "spikformer": Official(_config, _rename),
        "spikingformer_cml": Official(
            _cml_config,
            _rename,
            mark="patch_embed.rpe_conv.weight",
            sign="patch_embed.block1_conv.weight",
        ),
    },
)
