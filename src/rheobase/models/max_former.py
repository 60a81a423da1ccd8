"""Max-Former: depthwise convolutions and extra max-pooling keep high frequencies alive.

Fang et al. 2025, "Spiking Neural Networks Need High-Frequency Information", arXiv 2505.18608.
Released code: bic-L/MaxFormer. Spiking neurons pass low frequencies, so what a QKFormer does in its
early stages by attention is done by depthwise convolution here, and every later patch embedding
pools in both its paths. Membranes in all shortcuts.

Where code and paper differ: the code's MLPs have a shortcut around each of their layers where both
are as wide as the stream, which is so in the networks for events. ``compat="official"`` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import ConvNormNeuron, MembraneBlock, MembraneMlp, NeuronConvNorm, over_time
from rheobase.layers.mlp import add_mlp
from rheobase.models._initialise import initialise_layers
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikformer import spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "MaxFormer", "MaxFormerConfig"]

# Blocks and kernel of the depthwise convolution (0: none) of every stage before the last.
_EARLY: dict[str, tuple[tuple[int, int], ...]] = {
    "imagenet": ((1, 7), (2, 5)),
    "cifar": ((1, 0), (1, 3)),
    "events": ((1, 3),),
}
_PATCH = {"imagenet": 16, "cifar": 4, "events": 16}


@dataclass(frozen=True)
class MaxFormerConfig:
    """One Max-Former.

    Args:
        dim: number of channels of a token of the last stage; each stage before has half.
        heads: attention heads of the last stage; divides ``dim``.
        depth: blocks of the last stage.
        layout: "imagenet" (stages at 1/4, 1/8 and 1/16 of the image), "cifar" (at 1, 1/2 and 1/4)
            or "events" (two, at 1/8 and 1/16).
        image_size: side of the images it is meant for; any multiple of the patch works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        mlp_ratio: hidden width of the MLP over the channels of the stage.
        compat: "official" gives MLPs that widen nothing their inner shortcut, see the module.

    Raises:
        ValueError: sizes that do not divide each other, or an unknown layout.
    """

    dim: int
    heads: int
    depth: int = 7
    layout: Literal["imagenet", "cifar", "events"] = "imagenet"
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    mlp_ratio: float = 4.0
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        if self.layout not in _EARLY:
            raise ValueError(unknown_name("layout", self.layout, _EARLY))
        multiple = 16 if self.layout == "events" else 8
        check_sizes(
            dim=self.dim, dim_multiple=multiple, heads=self.heads, image_size=self.image_size,
            patch_size=_PATCH[self.layout], depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip

    @property
    def inner_shortcut(self) -> bool:
        """Whether each layer of an MLP has a shortcut of its own."""
        return self.mlp_ratio == 1 and self.compat == "official"


# The parts of the first patch embeddings are called as in the released code.


class LargeEmbed(nn.Module):
    """The first patch embedding of "imagenet", to a quarter of the image's side."""

    def __init__(self, channels: int, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        half = dim // 2
        self.embed1 = ConvNormNeuron(channels, half, nn.Identity(), kernel_size=3, stride=2)
        self.embed2 = NeuronConvNorm(half, dim, make_neuron(), kernel_size=3, stride=2)
        self.embed3 = NeuronConvNorm(dim, dim, make_neuron(), kernel_size=3)
        self.embed4 = ConvNormNeuron(half, dim, nn.Identity(), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H / 4, W / 4]``."""
        spikes = self.embed2.neuron(self.embed1(x))
        y = over_time(spikes, self.embed2.conv, self.embed2.norm)
        membrane: Tensor = self.embed3(y) + self.embed4(spikes)
        return membrane


class SmallEmbed(nn.Module):
    """The first patch embedding of "cifar", which keeps the image's size."""

    def __init__(self, channels: int, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        half = dim // 2
        self.first = ConvNormNeuron(channels, half, nn.Identity(), kernel_size=3)
        self.embed1 = NeuronConvNorm(half, dim, make_neuron(), kernel_size=3)
        self.embed2 = NeuronConvNorm(half, dim, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H, W]``."""
        x = self.first(x)
        y: Tensor = self.embed1(x) + self.embed2(x)
        return y


class EventEmbed(nn.Module):
    """The first patch embedding of "events", to an eighth of the image's side."""

    def __init__(self, channels: int, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        widths = (dim // 8, dim // 4, dim // 2, dim)
        self.first = ConvNormNeuron(channels, dim // 8, nn.Identity(), kernel_size=3)
        self.neurons = nn.ModuleList(make_neuron() for _ in range(3))
        self.downs = nn.ModuleList(
            ConvNormNeuron(a, b, nn.Identity(), kernel_size=3, pool=True)
            for a, b in pairwise(widths)
        )
        self.embed1 = ConvNormNeuron(dim // 4, dim, nn.Identity(), stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W]`` to membranes ``[T, N, dim, H / 8, W / 8]``."""
        x = self.downs[0](self.neurons[0](self.first(x)))
        spikes = self.neurons[1](x)
        y = self.downs[2](self.neurons[2](self.downs[1](spikes)))
        membrane: Tensor = y + self.embed1(spikes)
        return membrane


class MaxEmbed(nn.Module):
    """A later patch embedding: half the image, twice the channels, pooling in both its paths."""

    def __init__(self, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        half = dim // 2
        self.neuron = make_neuron()
        self.down = ConvNormNeuron(half, dim, nn.Identity(), kernel_size=3, pool=True)
        self.conv = NeuronConvNorm(dim, dim, make_neuron(), kernel_size=3)
        self.shortcut = ConvNormNeuron(half, dim, nn.Identity(), pool=True)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, dim / 2, H, W]`` to membranes ``[T, N, dim, H / 2, W / 2]``."""
        spikes = self.neuron(x)
        y: Tensor = self.conv(self.down(spikes)) + self.shortcut(spikes)
        return y


class ConvBlock(nn.Module):
    """A depthwise convolution (if ``kernel_size``), then MLP, each added to the membranes."""

    def __init__(
        self, dim: int, kernel_size: int, config: MaxFormerConfig, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.inner_shortcut = config.inner_shortcut
        self.mixer: NeuronConvNorm | None = None
        if kernel_size:
            self.mixer = NeuronConvNorm(
                dim, dim, make_neuron(), kernel_size=kernel_size, groups=dim, bias=True
            )
        self.mlp = MembraneMlp(dim, int(dim * config.mlp_ratio), make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        if self.mixer is not None:
            x = x + self.mixer(x)
        return add_mlp(x, self.mlp, self.inner_shortcut)


class MaxFormer(VisionNetwork):
    """Max-Former.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = MaxFormer(MaxFormerConfig(32, 2, 1, layout="cifar", image_size=32, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: MaxFormerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, _PATCH[config.layout])
        make_neuron = make_neuron or spikformer_neuron()
        early, dim, hidden = _EARLY[config.layout], config.dim, int(config.dim * config.mlp_ratio)
        widths = [dim // 2**i for i in reversed(range(len(early) + 1))]
        first = {"imagenet": LargeEmbed, "cifar": SmallEmbed, "events": EventEmbed}[config.layout]
        self.embeds = nn.ModuleList([first(config.channels, widths[0], make_neuron)])
        self.embeds.extend(MaxEmbed(width, make_neuron) for width in widths[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, kernel, config, make_neuron) for _ in range(depth)))
            for width, (depth, kernel) in zip(widths[:-1], early, strict=True)
        )
        inner = config.inner_shortcut
        attention_blocks = (
            MembraneBlock(dim, config.heads, hidden, make_neuron, inner_shortcut=inner)
            for _ in range(config.depth)
        )
        self.stages.append(nn.Sequential(*attention_blocks))
        self.neuron = make_neuron()
        self.head = nn.Linear(dim, config.num_classes)
        initialise_layers(self, nn.Conv2d if config.layout == "imagenet" else nn.Linear)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a sequence ``[T, N, C, H, W]``: ``[T, N, num_classes]``."""
        for embed, stage in zip(self.embeds, self.stages, strict=True):
            x = stage(embed(x))
        logits: Tensor = self.head(self.neuron(x.mean((-2, -1))))
        return logits


PRESETS: dict[str, MaxFormerConfig] = {
    "max_former_10_384": MaxFormerConfig(384, 6),
    "max_former_10_512": MaxFormerConfig(512, 8),
    "max_former_10_768": MaxFormerConfig(768, 12),
    "max_former_cifar10_4_384": MaxFormerConfig(384, 8, 2, "cifar", 32, num_classes=10),
    "max_former_cifar100_4_384": MaxFormerConfig(384, 8, 2, "cifar", 32, num_classes=100),
    **{
        f"max_former_{name}_2_256": MaxFormerConfig(
            256, 16, 1, "events", 128, channels=2, num_classes=n, T=16, mlp_ratio=1.0
        )
        for name, n in (("cifar10dvs", 10), ("dvs128", 11))
    },
}

_OURS: Replacements = {
    r"^patch_embed(\d)\.": lambda m: f"embeds.{int(m[1]) - 1}.",
    r"^stage(\d)\.": lambda m: f"stages.{int(m[1]) - 1}.",
    r"^embeds\.0\.max_embed(\d)\.embed_lif": lambda m: f"embeds.0.neurons.{int(m[1]) - 1}",
    r"^embeds\.0\.max_embed(\d)\.embed_": lambda m: f"embeds.0.downs.{int(m[1]) - 1}.",
    r"\.max_embed1\.embed_lif": ".neuron",
    r"\.max_embed1\.embed_": ".down.",
    r"\.max_embed2\.embed_": ".shortcut.",
    r"(^embeds\.[12])\.embed1\.": r"\1.conv.",
    r"^embeds\.0\.proj_": "embeds.0.first.",
    r"\.embed_(?=(conv|bn|lif))": ".",
    r"\.mixer\.conv5?_(?=(bn|neuron))": ".mixer.",
    r"\.mixer\.conv5\.": ".mixer.conv.",
    r"\.bn\.": ".norm.",
    r"\.lif(?=\.|$)": ".neuron",
    r"\.attn\.x_lif": ".attn.input",
    r"\.attn\.attn_lif": ".attn.neuron",
    r"^head_lif": "neuron",
}


def _rename(key: str) -> str:
    return split_units(replace_in_turn(key, _OURS))


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> MaxFormerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    first, layout = "embeds.0.first.conv.weight", "cifar"
    if "embeds.0.downs.0.conv.weight" in ours:
        layout = "events"
    elif "embeds.0.embed4.conv.weight" in ours:
        first, layout = "embeds.0.embed1.conv.weight", "imagenet"
    last = f"stages.{len(_EARLY[layout])}"
    mlp = f"{last}.0.mlp.fc1.conv.weight"
    attention, head = f"{last}.0.attn.q.conv.weight", "head.weight"
    need_layers(ours, "a Max-Former", first, "embeds.1.down.conv", attention, mlp, head)
    num_classes, dim = ours[head].shape
    published = next(preset for preset in PRESETS.values() if preset.layout == layout)
    return replace(
        published,
        dim=dim,
        heads=dim // 64 if layout == "imagenet" else published.heads,
        depth=depth_of(ours, last),
        channels=ours[first].shape[1],
        num_classes=num_classes,
        T=kwargs.get("T", published.T),
        mlp_ratio=ours[mlp].shape[0] / dim,
    )


FAMILY = Family(
    "max_former",
    network=MaxFormer,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={"max_former": Official(_config, _rename)},
)
