"""QKFormer: a hierarchical spiking transformer whose early stages attend with one spike a token.

Zhou et al. 2024, "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", arXiv
2403.16552. Released code: zhouchenlin2096/QKFormer, five files that are one network here.

Where code and paper differ: in every block with self-attention the code calls the last neuron on
``[T * N, ...]``, so that its membrane leaks from one sample of the batch to the next. All released
checkpoints were trained so. ``compat="official"`` does it; without it samples are independent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import (
    ConvNormNeuron,
    SpikingBlock,
    SpikingMlp,
    SpikingSelfAttention,
    sew_join,
    split_heads,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice, check_divides, check_sizes
from rheobase.models._names import depth_of, heads_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikformer import spikformer_neuron

__all__ = [
    "FAMILY",
    "PRESETS",
    "ChannelQKAttention",
    "QKFormer",
    "QKFormerConfig",
    "TokenQKAttention",
]

# Pixels to the side of a token of the last stage.
PATCH = {"imagenet": 16, "cifar": 4, "events": 16}


@dataclass(frozen=True)
class QKFormerConfig:
    """One QKFormer.

    Args:
        depth: number of blocks, over all stages.
        dim: number of channels of a token of the last stage; each stage before has half.
        heads: of the attentions; divides the channels of every stage.
        layout: "imagenet" (three stages, at 1/4, 1/8 and 1/16 of the image, of 1, 2 and the other
            blocks), "cifar" (at 1, 1/2 and 1/4, of 1, 1 and the others) or "events" (two stages,
            at 1/8 and 1/16, of one block each).
        image_size: side of the images it is meant for; any multiple of the patch works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        mlp_ratio: hidden width of the MLP over the channels of the stage.
        compat: "official" lets membranes leak between samples (see the module's docstring).
        attention: of the early stages: "token", as in all published networks, or "channel".

    Raises:
        ValueError: sizes that do not divide each other, or an unknown layout.
    """

    depth: int
    dim: int
    heads: int
    layout: Literal["imagenet", "cifar", "events"] = "imagenet"
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    mlp_ratio: float = 4.0
    compat: Literal["official"] | None = None
    attention: Literal["token", "channel"] = "token"

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        check_choice("attention", self.attention, _EARLY)
        if self.layout not in PATCH:
            raise ValueError(unknown_name("layout", self.layout, PATCH))
        check_sizes(
            dim=self.dim, dim_multiple=16, heads=self.heads, image_size=self.image_size,
            patch_size=PATCH[self.layout], channels=self.channels, num_classes=self.num_classes,
            T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip
        first = self.dims[0]
        check_divides("heads", self.heads, first, f"the {first} channels of the first stage")
        if min(self.depths) < 1:
            raise ValueError(f"depth={self.depth} leaves a stage of {self.layout!r} without blocks")

    @property
    def dims(self) -> list[int]:
        """Channels of every stage."""
        halves = 2 if self.layout == "events" else 3
        return [self.dim // 2**i for i in reversed(range(halves))]

    @property
    def depths(self) -> list[int]:
        """Blocks of every stage."""
        early = {"imagenet": [1, 2], "cifar": [1, 1], "events": [1]}[self.layout]
        return [*early, self.depth - sum(early)]


class PatchEmbed(nn.Module):
    """Spiking patch embedding with deformed shortcut: convolutions, beside one of 1x1.

    Args:
        widths: channels, of the input and behind every convolution.
        pools: whether each convolution halves the image.
        shortcut_from: how many convolutions come before the shortcut branches off.
        make_neuron: makes each neuron.
    """

    def __init__(
        self,
        widths: Sequence[int],
        pools: Sequence[bool],
        shortcut_from: int,
        make_neuron: MakeNeuron,
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3, pool=pool)
            for (a, b), pool in zip(pairwise(widths), pools, strict=True)
        )
        self.shortcut_from = shortcut_from
        self.shortcut = ConvNormNeuron(
            widths[shortcut_from], widths[-1], make_neuron(), stride=2 ** sum(pools[shortcut_from:])
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the integers 0 to 2, a smaller image of more channels."""
        for unit in self.units[: self.shortcut_from]:
            x = unit(x)
        shortcut = self.shortcut(x)
        for unit in self.units[self.shortcut_from :]:
            x = unit(x)
        return sew_join(x, shortcut, "ADD")


def _first_embed(config: QKFormerConfig, make_neuron: MakeNeuron) -> PatchEmbed:
    channels, dim = config.channels, config.dims[0]
    if config.layout == "imagenet":
        return PatchEmbed([channels, dim // 2, dim, dim], [True, True, False], 1, make_neuron)
    if config.layout == "cifar":
        return PatchEmbed([channels, dim // 2, dim], [False, False], 1, make_neuron)
    widths = [channels, dim // 8, dim // 4, dim // 2, dim]
    return PatchEmbed(widths, [False, True, True, True], 2, make_neuron)


def _later_embed(config: QKFormerConfig, dim: int, make_neuron: MakeNeuron) -> PatchEmbed:
    pools = [True, False] if config.layout == "imagenet" else [False, True]
    return PatchEmbed([dim // 2, dim, dim], pools, 0, make_neuron)


class TokenQKAttention(nn.Module):
    r"""Q-K token attention over the pixels of ``[T, N, C, H, W]``: Q decides which tokens pass.

    .. math:: A = \mathrm{SN}\Big(\sum_{channels} Q\Big), \qquad
       \mathrm{QKTA}(x) = \mathrm{SN}(\mathrm{BN}(W (A \otimes K)))

    The sum runs over the channels of a head; its neuron has threshold 1/2.
    Source: arXiv 2403.16552.
    """

    summed = -2

    def __init__(self, dim: int, heads: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.heads = heads
        self.q = ConvNormNeuron(dim, dim, make_neuron())
        self.k = ConvNormNeuron(dim, dim, make_neuron())
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k = split_heads(self.q(x), self.heads), split_heads(self.k(x), self.heads)
        passes = self.neuron(q.sum(self.summed, keepdim=True))
        spikes: Tensor = self.proj((passes * k).reshape(x.shape))
        return spikes


class ChannelQKAttention(TokenQKAttention):
    """Q-K channel attention: Q is summed over the tokens, and decides which channels pass.

    In the paper beside the other; no released network has it. Source: arXiv 2403.16552.
    """

    summed = -1


_EARLY = {"token": TokenQKAttention, "channel": ChannelQKAttention}


def _block(dim: int, config: QKFormerConfig, make_neuron: MakeNeuron) -> SpikingBlock:
    attn: nn.Module
    if dim == config.dim:
        leaks = config.compat == "official"
        attn = SpikingSelfAttention(dim, config.heads, make_neuron, leaks=leaks)
    else:
        attn = _EARLY[config.attention](dim, config.heads, make_neuron)
    return SpikingBlock(attn, SpikingMlp(dim, int(dim * config.mlp_ratio), make_neuron))


class QKFormer(VisionNetwork):
    """QKFormer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one inside
            an attention; default the paper's.

    >>> import torch
    >>> net = QKFormer(QKFormerConfig(3, 32, 2, layout="cifar", image_size=32, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: QKFormerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, PATCH[config.layout])
        make_neuron = make_neuron or spikformer_neuron()
        self.embeds = nn.ModuleList([_first_embed(config, make_neuron)])
        self.embeds.extend(_later_embed(config, dim, make_neuron) for dim in config.dims[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(_block(dim, config, make_neuron) for _ in range(depth)))
            for dim, depth in zip(config.dims, config.depths, strict=True)
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a sequence ``[T, N, C, H, W]``: ``[T, N, num_classes]``."""
        for embed, stage in zip(self.embeds, self.stages, strict=True):
            x = stage(embed(x))
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


def _cifar(num_classes: int) -> QKFormerConfig:
    return QKFormerConfig(4, 384, 8, "cifar", image_size=32, num_classes=num_classes)


def _events(num_classes: int, mlp_ratio: float) -> QKFormerConfig:
    return QKFormerConfig(
        2, 256, 16, "events", image_size=128, channels=2, num_classes=num_classes, T=16,
        mlp_ratio=mlp_ratio,
    )  # fmt: skip


PRESETS: dict[str, QKFormerConfig] = {
    "qkformer_10_384": QKFormerConfig(10, 384, 6),
    "qkformer_10_512": QKFormerConfig(10, 512, 8),
    "qkformer_10_768": QKFormerConfig(10, 768, 12),
    "qkformer_cifar10_4_384": _cifar(10),
    "qkformer_cifar100_4_384": _cifar(100),
    "qkformer_cifar10dvs": _events(10, mlp_ratio=1.0),
    # As in the repository; the paper's 1.50 M parameters would be a ratio of 1 here too.
    "qkformer_dvs128": _events(11, mlp_ratio=4.0),
}


def _rename(key: str) -> str:
    key = split_units(key)
    key = re.sub(r"^patch_embed1\.proj(\d?)\.", lambda m: f"embeds.0.units.{m[1] or 0}.", key)
    key = re.sub(r"^patch_embed([23])\.proj3?\.", r"patch_embed\1.units.0.", key)
    key = re.sub(r"^patch_embed([23])\.proj4\.", r"patch_embed\1.units.1.", key)
    key = re.sub(r"^patch_embed(\d)\.", lambda m: f"embeds.{int(m[1]) - 1}.", key)
    key = re.sub(r"^stage(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.", key)
    key = re.sub(r"\.(tssa|ssa)\.", ".attn.", key).replace(".proj_res.", ".shortcut.")
    key = re.sub(r"\.mlp([12])\.", r".fc\1.", key)
    return key.replace(".attn.attn.neuron", ".attn.neuron")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> QKFormerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a QKFormer", "embeds.0.units.0.conv", "stages.0.0.attn.q.conv", "head")
    num_classes, dim = ours["head.weight"].shape
    layout: Literal["imagenet", "cifar", "events"] = "imagenet"
    if "stage3.0.attn.q_conv.weight" not in weights:
        layout = "cifar" if "stage3.0.ssa.q_conv.weight" in weights else "events"
    # The released code ignores num_heads except on ImageNet.
    fixed = {"cifar": 8, "events": 16}
    heads = fixed[layout] if layout in fixed else heads_of(kwargs, [dim // 64], dim // 4)
    return QKFormerConfig(
        depth=sum(depth_of(ours, f"stages.{i}") for i in range(3)),
        dim=dim,
        heads=heads,
        layout=layout,
        image_size=kwargs.get("img_size_h", {"imagenet": 224, "cifar": 32, "events": 128}[layout]),
        channels=ours["embeds.0.units.0.conv.weight"].shape[1],
        num_classes=num_classes,
        T=kwargs.get("T", 4),
        mlp_ratio=ours["stages.0.0.mlp.fc1.conv.weight"].shape[0]
        / ours["stages.0.0.mlp.fc1.conv.weight"].shape[1],
    )


FAMILY = Family(
    "qkformer",
    network=QKFormer,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={"qkformer": Official(_config, _rename)},
)
