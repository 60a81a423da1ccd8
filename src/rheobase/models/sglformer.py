"""SGLFormer: spiking attention inside sparse local groups of tokens, then among all.

Zhang et al. 2024, "SGLFormer: Spiking Global-Local-Fusion Transformer with high performance",
Frontiers in Neuroscience 18, doi 10.3389/fnins.2024.1371290. Released code: ZhangHanN1/SGLFormer,
six files that are one network here; what differs between them follows from the ``layout``.

Where code and paper differ: on ImageNet the code calls the last neuron of every global attention,
and in one of two files the first of the stem, on ``[T * N, ...]``, so that membranes leak from one
sample of the batch to the next. ``compat="official"`` does so, for the released checkpoints;
without it samples are independent. The parameter counts that the repository gives for event data
(2.48 and 2.08 million) are not those of its code (4.07 million at T = 10), which is built here.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import ConvNormNeuron, SpikingBlock, SpikingMlp, SpikingSelfAttention, sew_join
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official, Untold
from rheobase.models.spikformer import spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "LocalSelfAttention", "SGLFormer", "SGLFormerConfig"]

Layout = Literal["imagenet", "imagenet_early", "cifar", "events"]

# Which of the five convolutions of the stem halve the image.
_POOLS = {
    "imagenet": (False, True, True, True, True),
    "imagenet_early": (True, True, True, True, False),
    "cifar": (False, False, False, True, True),
    "events": (False, True, True, True, True),
}


@dataclass(frozen=True)
class SGLFormerConfig:
    """One SGLFormer.

    Args:
        dim: number of channels of a token.
        heads: attention heads; divides ``dim``.
        global_blocks: blocks with global attention in every group; may be 0.
        layout: which released file it is: "imagenet", "imagenet_early" (the stem halves the image
            one convolution earlier; starred there), "cifar" or "events". The last two have no
            biases in linear maps, and one convolution over all tokens and steps for a head.
        groups: how often a local unit, a block with local and the global blocks follow another.
        image_size: side of the images; with T what the head of "cifar" and "events" is made for.
        channels: input channels.
        num_classes: outputs.
        T: time steps.
        mlp_ratio: hidden width of the MLP over ``dim``.
        compat: "official" lets membranes leak between samples (see the module's docstring).

    Raises:
        ValueError: sizes that do not divide each other, or an unknown layout.
    """

    dim: int
    heads: int
    global_blocks: int
    layout: Layout = "imagenet"
    groups: int = 1
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    mlp_ratio: float = 4.0
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        if self.layout not in _POOLS:
            raise ValueError(unknown_name("layout", self.layout, _POOLS))
        if self.global_blocks < 0:
            raise ValueError(f"global_blocks must not be negative, got {self.global_blocks}")
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=self.heads, image_size=self.image_size,
            patch_size=2 * self.patch_size, groups=self.groups, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip

    @property
    def large(self) -> bool:
        """Whether it is one of the networks for ImageNet."""
        return self.layout.startswith("imagenet")

    @property
    def patch_size(self) -> int:
        """Pixels to the side of a token."""
        return int(2 ** sum(_POOLS[self.layout]))


def _stem(config: SGLFormerConfig, make_neuron: MakeNeuron) -> nn.Sequential:
    """Five convolutions to tokens."""
    dim = config.dim
    first = dim // 8 if config.large else dim // 6
    widths = [config.channels, first, dim // 4, dim // 2, dim, dim]
    leaks = config.compat == "official" and config.layout == "imagenet"
    units = zip(pairwise(widths), _POOLS[config.layout], strict=True)
    return nn.Sequential(
        *(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3, pool=pool, leaks=leaks and i == 0)
            for i, ((a, b), pool) in enumerate(units)
        )
    )


class LocalUnit(nn.Module):
    """Depthwise and 1x1 convolutions; its input comes out thrice, as in the released code."""

    def __init__(self, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        wide = 4 * dim
        self.mix = ConvNormNeuron(dim, dim, make_neuron(), kernel_size=3, groups=dim)
        self.expand = ConvNormNeuron(dim, wide, make_neuron())
        self.depthwise = ConvNormNeuron(wide, wide, make_neuron(), kernel_size=3, groups=wide)
        self.shrink = ConvNormNeuron(wide, dim, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """``x + h + f(h)`` with ``h = x + mix(x)``, ``[T, N, C, H, W]`` to the same shape."""
        h = sew_join(self.mix(x), x, "ADD")
        y = sew_join(self.shrink(self.depthwise(self.expand(h))), h, "ADD")
        return sew_join(y, x, "ADD")


class LocalSelfAttention(SpikingSelfAttention):
    """Spiking self-attention within four groups of tokens: every other row and column."""

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape; H and W are even."""
        steps, samples, channels, height, width = x.shape
        groups = x.reshape(steps, samples, channels, height // 2, 2, width // 2, 2)
        groups = groups.permute(0, 1, 4, 6, 2, 3, 5)
        y = super().forward(groups.flatten(1, 3))
        y = y.reshape(steps, samples, 2, 2, channels, height // 2, width // 2)
        return y.permute(0, 1, 4, 5, 2, 6, 3).reshape(x.shape)


def _block(config: SGLFormerConfig, local: bool, make_neuron: MakeNeuron) -> SpikingBlock:
    attention = LocalSelfAttention if local else SpikingSelfAttention
    bias = config.large and not local
    attn = attention(
        config.dim, config.heads, make_neuron,
        proj_bias=bias, leaks=bias and config.compat == "official",
    )  # fmt: skip
    hidden = int(config.dim * config.mlp_ratio)
    return SpikingBlock(attn, SpikingMlp(config.dim, hidden, make_neuron, bias=bias))


def _group(config: SGLFormerConfig, make_neuron: MakeNeuron) -> nn.Sequential:
    """A local unit, a block with local attention, then blocks with global attention."""
    local = LocalUnit(config.dim, make_neuron)
    blocks = (_block(config, i == 0, make_neuron) for i in range(1 + config.global_blocks))
    return nn.Sequential(OrderedDict(local=local, blocks=nn.Sequential(*blocks)))


class FullSizeConv(nn.Module):
    """One weight for every channel, token and time step: ``[T, N, C, H, W] -> [1, N, C]``."""

    causal = False

    def __init__(self, dim: int, tokens: int, steps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, (tokens, steps), groups=dim)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum over all tokens and time steps.

        Raises:
            ValueError: another number of tokens or steps than it was built for.
        """
        y = x.flatten(3).permute(1, 2, 3, 0)
        if tuple(y.shape[2:]) != self.conv.kernel_size:
            tokens, steps = self.conv.kernel_size
            raise ValueError(
                f"the head weighs {tokens} tokens at {steps} steps, got {y.shape[2]} tokens at "
                f"{y.shape[3]} steps; build the network with this image_size and T"
            )
        out: Tensor = self.norm(self.conv(y)).flatten(1)
        return out.unsqueeze(0)


class SGLFormer(VisionNetwork):
    """SGLFormer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            an attention product; default the paper's.

    >>> import torch
    >>> config = SGLFormerConfig(48, 4, 1, layout="cifar", image_size=32, num_classes=10)
    >>> SGLFormer(config)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(self, config: SGLFormerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, 2 * config.patch_size)  # attention is local in groups of 2x2
        make_neuron = make_neuron or spikformer_neuron()
        self.stem = _stem(config, make_neuron)
        self.groups = nn.Sequential(*(_group(config, make_neuron) for _ in range(config.groups)))
        self.readout: FullSizeConv | None = None
        if not config.large:
            tokens = (config.image_size // config.patch_size) ** 2
            self.readout = FullSizeConv(config.dim, tokens, config.T)
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """``[T, N, num_classes]``; ``[1, N, num_classes]`` of "cifar" and "events"."""
        x = self.groups(self.stem(x))
        y = x.mean((-2, -1)) if self.readout is None else self.readout(x)
        logits: Tensor = self.head(y)
        return logits


PRESETS: dict[str, SGLFormerConfig] = {
    "sglformer_8_384": SGLFormerConfig(384, 6, 6),
    "sglformer_8_512": SGLFormerConfig(512, 8, 6),
    "sglformer_8_512_early": SGLFormerConfig(512, 8, 6, "imagenet_early"),
    "sglformer_8_768": SGLFormerConfig(768, 12, 6, "imagenet_early"),
    # In the released code, without published results.
    "sglformer_8_384_early": SGLFormerConfig(384, 6, 6, "imagenet_early"),
    "sglformer_8_768_late": SGLFormerConfig(768, 12, 6),
    "sglformer_cifar10_4_384": SGLFormerConfig(384, 16, 2, "cifar", image_size=32, num_classes=10),
    "sglformer_cifar100_4_384": SGLFormerConfig(
        384, 16, 2, "cifar", image_size=32, num_classes=100
    ),
    **{
        f"sglformer_{name}_3_256_T{T}": SGLFormerConfig(
            256, 16, 2, "events", image_size=128, channels=2, num_classes=n, T=T
        )
        for name, n in (("cifar10dvs", 10), ("dvs128", 11))
        for T in (10, 16)
    },
}

_OURS: Replacements = {
    r"^patch_embed\.proj(\d)?\.": lambda m: f"stem.{m[1] or 0}.",
    r"^stem\.conv\.": "stem.0.",
    r"^tokenizer\.conv(\d)\.": r"stem.\1.",
    r"^blocks\.(\d+)\.(attn|mlp)\.": lambda m: f"groups.0.blocks.{int(m[1]) + 1}.{m[2]}.",
    r"^localblock\.0\.local1\.": "groups.0.local.",
    r"^localblock\.0\.local2_SSA\.": "groups.0.blocks.0.attn.",
    r"^localblock\.0\.local2_MLP\.": "groups.0.blocks.0.mlp.",
    r"^blocks\.(\d+)\.loc\.": r"groups.\1.local.",
    r"^blocks\.(\d+)\.ssa(\d)\.": lambda m: f"groups.{m[1]}.blocks.{int(m[2]) - 1}.attn.",
    r"^blocks\.(\d+)\.mlp(\d)\.": lambda m: f"groups.{m[1]}.blocks.{int(m[2]) - 1}.mlp.",
    r"\.local\.conv\.": ".local.mix.",
    r"\.conv1x1_1\.": ".expand.",
    r"\.dwconv3x3\.": ".depthwise.",
    r"\.conv1x1_2\.": ".shrink.",
    r"\.mlp\.mlp([12])\.": r".mlp.fc\1.",
    r"^full_size\.": "readout.",
    r"^bn\.": "readout.norm.",
    r"\.(q|k|v|proj)\.conv\.(conv1x1|bn|lif)": r".\1.\2",
    r"\.conv(1x1|3x3)\.": ".conv.",
    r"\.bn\.": ".norm.",
    r"\.lif": ".neuron",
    r"\.attn\.attn\.neuron": ".attn.neuron",
}


def _rename(key: str) -> str | None:
    if re.match(r"blocks\.\d+\.norm[12]\.", key):  # layer norms, never used
        return None
    return replace_in_turn(split_units(key), _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SGLFormerConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "an SGLFormer", "stem.0.conv", "groups.0.local.mix.conv", "head")
    num_classes, dim = ours["head.weight"].shape
    channels = ours["stem.0.conv.weight"].shape[1]
    layout: Layout
    if "localblock.0.local1.conv.bn.weight" in weights:
        # Two files have the same weights; 8-384 and 8-768 were published of one each.
        file = kwargs.get("cls", {384: "sglformer_ima2", 768: "sglformer_ima"}.get(dim))
        if file is None:
            raise Untold(
                "the weights do not tell which of the released files they belong to; give kwargs "
                'cls="sglformer_ima" or cls="sglformer_ima2"',
                cls="sglformer_ima2",
            )
        early = file == "sglformer_ima"
        layout, tokens, steps = "imagenet_early" if early else "imagenet", 196, kwargs.get("T", 4)
    else:
        layout = "events" if channels == 2 else "cifar"
        tokens, steps = weights["full_size_conv.weight"].shape[2:]
    patch_size = 2 ** sum(_POOLS[layout])
    return SGLFormerConfig(
        dim=dim,
        heads=kwargs.get("num_heads", 16 if "full_size_conv.weight" in weights else dim // 64),
        global_blocks=depth_of(ours, "groups.0.blocks") - 1,
        layout=layout,
        groups=depth_of(ours, "groups"),
        image_size=round(tokens**0.5) * patch_size,
        channels=channels,
        num_classes=num_classes,
        T=steps,
        mlp_ratio=ours["groups.0.blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
    )


FAMILY = Family(
    "sglformer",
    network=SGLFormer,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={"sglformer": Official(_config, _rename)},
)
