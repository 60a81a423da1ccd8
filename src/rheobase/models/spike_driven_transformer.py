"""Spike-driven Transformer (V1): attention of masks and additions, membranes in the shortcuts.

Yao et al. 2023, "Spike-driven Transformer", arXiv 2307.01694. Released code:
BICLab/Spike-Driven-Transformer. Every matrix product has spikes on one side, and attention
(SDSA) has no product at all: a sum of ``K * V`` over the tokens decides, channel by channel, which
channels of ``Q`` pass.

Where code and paper differ: on event data the code widens spikes by a 3x3 maximum (``erode``), of
K and V over the image, but of ``K * V`` and ``Q * mask`` over the plane of token index and channel
within the head, which has no meaning. Where ``mlp_ratio`` is 1, which no published network has,
the code also adds the MLP's input behind its first layer. ``compat="official"`` does both; without
it all four maxima run over the image, and the MLP is as in every other size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rheobase.layers import (
    ChannelMaskAttention,
    ConvNormNeuron,
    MembraneMlp,
    MembraneStem,
    add_mlp,
    over_time,
)
from rheobase.models._initialise import initialise_layers
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import depth_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official, Untold
from rheobase.neurons import LIF, PLIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = [
    "FAMILY",
    "PRESETS",
    "SpikeDrivenAttention",
    "SpikeDrivenTransformer",
    "SpikeDrivenTransformerConfig",
]


@dataclass(frozen=True)
class SpikeDrivenTransformerConfig:
    """One Spike-driven Transformer.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 8.
        heads: of the attention; they matter only to ``erode`` with ``compat="official"``.
        image_size: side of the images it is meant for; any multiple of ``patch_size`` works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        patch_size: pixels to a token's side: 1, 2, 4, 8 or 16; the last ``log2(patch_size)`` of
            the four stages of the stem halve the image.
        mlp_ratio: hidden width of the MLP over ``dim``.
        erode: widen the spikes in the attention by a 3x3 maximum (the code's ``dvs_mode``).
        learn_tau: the paper's neuron is PLIF instead of LIF (the code's ``spike_mode="plif"``).
        compat: "official" computes as the released code does (see the module's docstring).

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int
    dim: int
    heads: int = 8
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    T: int = 4
    patch_size: int = 4
    mlp_ratio: float = 4.0
    erode: bool = False
    learn_tau: bool = False
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        if self.patch_size not in (1, 2, 4, 8, 16):
            raise ValueError(f"patch_size must be 1, 2, 4, 8 or 16, got {self.patch_size}")
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=self.heads, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"learn_tau": self.learn_tau}


def spike_driven_neuron(*, learn_tau: bool = False, **kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF (or PLIF), tau 2, reset detached, sigmoid surrogate, alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(PLIF if learn_tau else LIF, **(defaults | kwargs))


class SpikeDrivenAttention(ChannelMaskAttention):
    """Spike-driven self-attention (SDSA-1), on event data with spikes widened by ``erode``.

    Source: arXiv 2307.01694. The neuron behind the sum has threshold 1/2.
    """

    def __init__(self, config: SpikeDrivenTransformerConfig, make_neuron: MakeNeuron) -> None:
        dim = config.dim
        super().__init__(
            input=make_neuron(),
            q=ConvNormNeuron(dim, dim, make_neuron()),
            k=ConvNormNeuron(dim, dim, make_neuron()),
            v=ConvNormNeuron(dim, dim, make_neuron()),
            mask=make_neuron(v_threshold=0.5),
            proj=ConvNormNeuron(dim, dim, nn.Identity(), bias=True),
        )
        self.heads = config.heads
        self.erode = config.erode
        self.compat = config.compat

    def summed(self, spikes: Tensor) -> Tensor:
        """K and V, where both spike."""
        assert self.v is not None
        k, v = self.k(spikes), self.v(spikes)
        return self.join(erode_image(k), erode_image(v)) if self.erode else self.join(k, v)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Spikes where both spike, then widened."""
        x = super().join(a, b)
        if not self.erode:
            return x
        return erode_tokens(x, self.heads) if self.compat == "official" else erode_image(x)


def erode_image(x: Tensor) -> Tensor:
    """The maximum of every 3x3 window of ``[T, N, C, H, W]``."""
    return over_time(x, nn.MaxPool2d(3, stride=1, padding=1))


def erode_tokens(x: Tensor, heads: int) -> Tensor:
    """What the released code does: 3x3 windows over (token, channel within the head)."""
    planes = x.reshape(-1, heads, x.shape[2] // heads, x[0, 0, 0].numel()).mT
    return F.max_pool2d(planes, 3, stride=1, padding=1).mT.reshape(x.shape)


class Block(nn.Module):
    """Attention, then MLP, each added to the membranes."""

    def __init__(self, config: SpikeDrivenTransformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.attn = SpikeDrivenAttention(config, make_neuron)
        hidden = int(config.dim * config.mlp_ratio)
        self.mlp = MembraneMlp(config.dim, hidden, make_neuron)
        self.inner_shortcut = hidden == config.dim and config.compat == "official"

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = x + self.attn(x)
        return add_mlp(x, self.mlp, self.inner_shortcut)


class SpikeDrivenTransformer(VisionNetwork):
    """Spike-driven Transformer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one in the
            attention; default the paper's.

    >>> import torch
    >>> net = SpikeDrivenTransformer(SpikeDrivenTransformerConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(
        self, config: SpikeDrivenTransformerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spike_driven_neuron(**config.neuron_options)
        self.stem = MembraneStem(
            config.channels, config.dim, config.patch_size, make_neuron, position=make_neuron()
        )
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.neuron = make_neuron()
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layers(self, nn.Conv2d)  # as released: not the head

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a sequence ``[T, N, C, H, W]``: ``[T, N, num_classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.neuron(x.mean((-2, -1))))
        return logits


def _imagenet(depth: int, dim: int) -> SpikeDrivenTransformerConfig:
    return SpikeDrivenTransformerConfig(depth, dim, image_size=224, num_classes=1000, patch_size=16)


PRESETS: dict[str, SpikeDrivenTransformerConfig] = {
    "spike_driven_transformer_8_384": _imagenet(8, 384),
    "spike_driven_transformer_6_512": _imagenet(6, 512),
    "spike_driven_transformer_8_512": _imagenet(8, 512),
    "spike_driven_transformer_10_512": _imagenet(10, 512),
    "spike_driven_transformer_8_768": _imagenet(8, 768),
    **{
        f"spike_driven_transformer_cifar{n}_2_{dim}": SpikeDrivenTransformerConfig(
            2, dim, num_classes=n
        )
        for n in (10, 100)
        for dim in (256, 512)
    },
    "spike_driven_transformer_cifar10dvs_2_256": SpikeDrivenTransformerConfig(
        2, 256, image_size=64, channels=2, num_classes=10, T=10, patch_size=4, erode=True
    ),
    "spike_driven_transformer_dvs128_2_256": SpikeDrivenTransformerConfig(
        2, 256, image_size=128, channels=2, num_classes=11, T=16, patch_size=8, erode=True
    ),
}

_OURS = {
    "patch_embed.proj3.neuron": "stem.position.neuron",
    "patch_embed.proj.": "stem.stages.0.",
    "patch_embed.proj": "stem.stages.",
    "patch_embed.rpe.": "stem.position.",
    ".attn.shortcut.neuron": ".attn.input",
    ".attn.talking_heads.neuron": ".attn.mask",
    "block.": "blocks.",
    "head.neuron": "neuron",
}
_NEVER_USED = (".attn.talking_heads.weight", ".attn.attn_lif", "patch_embed.rpe_lif")


def _rename(key: str) -> str | None:
    if any(part in key for part in _NEVER_USED):
        return None
    key = split_units(key)
    for theirs, ours in _OURS.items():
        key = key.replace(theirs, ours)
    return key


def _config(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]
) -> SpikeDrivenTransformerConfig:
    need_layers(weights, "a Spike-driven Transformer", "patch_embed.proj_conv", "head")
    num_classes, dim = weights["head.weight"].shape
    depth = depth_of(weights, "block")
    channels = weights["patch_embed.proj_conv.weight"].shape[1]
    shape = (depth, dim, channels, num_classes)
    known = [p for p in PRESETS.values() if (p.depth, p.dim, p.channels, p.num_classes) == shape]
    if "pooling_stat" not in kwargs and not known:
        raise Untold(
            "the weights do not tell where the stem halves the image; give kwargs pooling_stat=...",
            pooling_stat="1111",
        )
    stages = str(kwargs.get("pooling_stat", ""))
    if "10" in stages:
        raise ValueError(f"pooling_stat must pool in the last stages, as 0011, got {stages!r}")
    heads = [key for key in weights if key.endswith("talking_heads.weight")]
    patch_size = 2 ** stages.count("1") if stages else known[0].patch_size
    return SpikeDrivenTransformerConfig(
        depth=depth,
        dim=dim,
        heads=kwargs.get("num_heads") or (weights[heads[0]].shape[0] if heads else 8),
        image_size=kwargs.get("img_size_h") or (known[0].image_size if known else 8 * patch_size),
        channels=channels,
        num_classes=num_classes,
        T=kwargs.get("T", 4),
        patch_size=patch_size,
        mlp_ratio=weights["block.0.mlp.fc1_conv.weight"].shape[0] / dim,
        erode=kwargs.get("dvs_mode", channels == 2),
        learn_tau="head_lif.w" in weights,
    )


FAMILY = Family(
    "spike_driven_transformer",
    network=SpikeDrivenTransformer,
    presets=PRESETS,
    neuron=spike_driven_neuron,
    official={"spike_driven_transformer": Official(_config, _rename)},
)
