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
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import ConvNormNeuron, SpikingMlp, SpikingSelfAttention, sew_join
from rheobase.models._inputs import as_sequence, check_sizes
from rheobase.models._names import Replacements, depth_of, replace_in_turn, split_units
from rheobase.models.registry import Family, MakeNeuron, Official, Untold
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "LocalSelfAttention", "SGLFormer", "SGLFormerConfig"]

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
        global_blocks: blocks with global attention in every group.
        layout: which released file it is: "imagenet", "imagenet_early" (the stem halves the image
            one convolution earlier; starred in the repository), "cifar" or "events". The last two
            have no biases in their linear maps, and a head that is one convolution over all
            tokens and time steps.
        groups: how often a local unit, a block with local and the global blocks follow another.
        image_size: side of the images; the head of "cifar" and "events" is made for it.
        channels: input channels.
        num_classes: outputs.
        T: time steps; the head of "cifar" and "events" is made for them.
        mlp_ratio: hidden width of the MLP over ``dim``.
        compat: "official" lets membranes leak between samples (see the module's docstring).

    Raises:
        ValueError: sizes that do not divide each other, or an unknown layout.
    """

    dim: int
    heads: int
    global_blocks: int
    layout: Literal["imagenet", "imagenet_early", "cifar", "events"] = "imagenet"
    groups: int = 1
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    mlp_ratio: float = 4.0
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        if self.layout not in _POOLS:
            raise ValueError(unknown_name("layout", self.layout, _POOLS))
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=self.heads, image_size=self.image_size,
            patch_size=2 * self.patch_size, global_blocks=self.global_blocks, groups=self.groups,
            channels=self.channels, num_classes=self.num_classes, T=self.T,
            mlp_ratio=self.mlp_ratio,
        )  # fmt: skip

    @property
    def large(self) -> bool:
        """Whether it is one of the networks for ImageNet."""
        return self.layout.startswith("imagenet")

    @property
    def patch_size(self) -> int:
        """Pixels to the side of a token."""
        return int(2 ** sum(_POOLS[self.layout]))


def sglformer_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF, tau 2, reset detached, sigmoid surrogate with alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


def _stem(config: SGLFormerConfig, make_neuron: MakeNeuron) -> nn.Sequential:
    """Five convolutions to tokens."""
    dim = config.dim
    first = dim // 8 if config.large else dim // 6
    widths = [config.channels, first, dim // 4, dim // 2, dim, dim]
    stem = nn.Sequential(
        *(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3, pool=pool)
            for (a, b), pool in zip(pairwise(widths), _POOLS[config.layout], strict=True)
        )
    )
    if config.compat == "official" and config.layout == "imagenet":
        assert isinstance(stem[0], ConvNormNeuron)
        stem[0].leaks = True
    return stem


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


class Block(nn.Module):
    """Attention, then MLP, each added to a stream of small integers."""

    def __init__(self, config: SGLFormerConfig, local: bool, make_neuron: MakeNeuron) -> None:
        super().__init__()
        attention = LocalSelfAttention if local else SpikingSelfAttention
        bias = config.large and not local
        self.attn = attention(
            config.dim, config.heads, make_neuron,
            proj_bias=bias, leaks=bias and config.compat == "official",
        )  # fmt: skip
        hidden = int(config.dim * config.mlp_ratio)
        self.mlp = SpikingMlp(config.dim, hidden, make_neuron, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(self.attn(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")


class Group(nn.Module):
    """A local unit, a block with local attention, then blocks with global attention."""

    def __init__(self, config: SGLFormerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.local = LocalUnit(config.dim, make_neuron)
        self.blocks = nn.Sequential(
            *(Block(config, i == 0, make_neuron) for i in range(1 + config.global_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        y: Tensor = self.blocks(self.local(x))
        return y


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


class SGLFormer(nn.Module):
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
        super().__init__()
        make_neuron = make_neuron or sglformer_neuron()
        self.config = config
        self.T = config.T
        self.stem = _stem(config, make_neuron)
        self.groups = nn.Sequential(*(Group(config, make_neuron) for _ in range(config.groups)))
        self.readout: FullSizeConv | None = None
        if not config.large:
            tokens = (config.image_size // config.patch_size) ** 2
            self.readout = FullSizeConv(config.dim, tokens, config.T)
        self.head = nn.Linear(config.dim, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; their mean over the first axis is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]`` of an ImageNet layout; else ``[1, N, num_classes]``, for the
            head sees all steps at once.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels, image size or number of steps, or an empty input.
        """
        config = self.config
        divisor = 2 * config.patch_size  # attention is local in groups of 2x2
        x = as_sequence(x, steps=self.T, channels=config.channels, divisor=divisor)
        x = self.groups(self.stem(x))
        y = x.mean((-2, -1)) if self.readout is None else self.readout(x)
        logits: Tensor = self.head(y)
        return logits


def _cifar(num_classes: int) -> SGLFormerConfig:
    return SGLFormerConfig(384, 16, 2, "cifar", image_size=32, num_classes=num_classes)


def _events(num_classes: int, T: int) -> SGLFormerConfig:
    return SGLFormerConfig(
        256, 16, 2, "events", image_size=128, channels=2, num_classes=num_classes, T=T
    )


PRESETS: dict[str, SGLFormerConfig] = {
    "sglformer_8_384": SGLFormerConfig(384, 6, 6),
    "sglformer_8_512": SGLFormerConfig(512, 8, 6),
    "sglformer_8_512_early": SGLFormerConfig(512, 8, 6, "imagenet_early"),
    "sglformer_8_768": SGLFormerConfig(768, 12, 6, "imagenet_early"),
    # In the released code, without published results.
    "sglformer_8_384_early": SGLFormerConfig(384, 6, 6, "imagenet_early"),
    "sglformer_8_768_late": SGLFormerConfig(768, 12, 6),
    "sglformer_cifar10_4_384": _cifar(10),
    "sglformer_cifar100_4_384": _cifar(100),
    **{
        f"sglformer_{name}_3_256_T{T}": _events(classes, T)
        for name, classes in (("cifar10dvs", 10), ("dvs128", 11))
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
    for needed in ("stem.0.conv.weight", "groups.0.local.mix.conv.weight", "head.weight"):
        if needed not in ours:
            raise ValueError(f"not an SGLFormer checkpoint: nothing in it is {needed}")
    num_classes, dim = ours["head.weight"].shape
    channels = ours["stem.0.conv.weight"].shape[1]
    layout: Literal["imagenet", "imagenet_early", "cifar", "events"]
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
    neuron=sglformer_neuron,
    official={"sglformer": Official(_config, _rename)},
)
