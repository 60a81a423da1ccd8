"""Spike-driven Transformer V2 (Meta-SpikeFormer): convolution stages, then attention stages.

Yao et al. 2024, "Spike-driven Transformer V2: Meta Spiking Neural Network Architecture Inspiring
the Design of Next-generation Neuromorphic Chips", arXiv 2404.03663. Released code:
BICLab/Spike-Driven-Transformer-V2, the classification network. Membranes in every shortcut; the
linear maps of the attention (SDSA-3) are re-parameterisable convolutions.

The head for the labels reads spikes, as in the released code since 25 March 2024; before, it read
membranes. The checkpoints were released in April 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from rheobase.layers import (
    ChannelMaskAttention,
    MembraneMlp,
    MembraneSelfAttention,
    MetaConvBlock,
    NeuronConvNorm,
    RepConv,
    meta_downsampling,
    over_time,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import Replacements, heads_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "MetaSpikeFormer", "MetaSpikeFormerConfig"]

Attention = Literal["SDSA-1", "SDSA-2", "SDSA-3", "SDSA-4"]


@dataclass(frozen=True)
class MetaSpikeFormerConfig:
    """One Meta-SpikeFormer.

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the image, and of the last stage, also at 1/16.
        heads: attention heads; divides the last two widths.
        image_size: side of the images it is meant for; any multiple of 16 works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for (the paper trains at 1 and finetunes at 4).
        mlp_ratio: hidden width of the MLP over the channels of its stage.
        distilled: a second head, to be trained towards a teacher (see `MetaSpikeFormer.heads`).
        attention: "SDSA-3", as in all released networks; "SDSA-1", "SDSA-2" or "SDSA-4".

    Raises:
        ValueError: sizes that do not divide each other.
    """

    widths: tuple[int, int, int, int]
    heads: int = 8
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    mlp_ratio: float = 4.0
    distilled: bool = False
    attention: Attention = "SDSA-3"

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, get_args(Attention))
        if len(self.widths) != 4 or self.widths[0] % 2:
            raise ValueError(f"widths are four numbers, the first even, got {self.widths}")
        for width in self.widths[2:]:
            check_sizes(
                dim=width, dim_multiple=1, heads=self.heads, image_size=self.image_size,
                patch_size=16, channels=self.channels, num_classes=self.num_classes, T=self.T,
                mlp_ratio=self.mlp_ratio, width=min(self.widths),
            )  # fmt: skip


def meta_spikeformer_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF, tau 2, reset detached, sigmoid surrogate with alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class SeparableConv(nn.Module):
    """Inverted separable convolution: wider, 7x7 channel by channel, narrower."""

    def __init__(self, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.expand = NeuronConvNorm(dim, 2 * dim, make_neuron())
        self.neuron = make_neuron()
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim, bias=False)
        self.shrink = nn.Conv2d(2 * dim, dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        return over_time(self.neuron(self.expand(x)), self.depthwise, self.shrink, self.norm)


class Block(nn.Module):
    """Attention, then MLP, each added to the membranes."""

    def __init__(self, dim: int, config: MetaSpikeFormerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.attn = _attention(dim, config, make_neuron)
        self.mlp = MembraneMlp(dim, int(dim * config.mlp_ratio), make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        x = x + self.attn(x)
        x = x + self.mlp(x)
        return x


def _attention(dim: int, config: MetaSpikeFormerConfig, make_neuron: MakeNeuron) -> nn.Module:
    kind = config.attention
    start, behind = make_neuron(), make_neuron(v_threshold=0.5)
    q, k = RepConv(dim, make_neuron()), RepConv(dim, make_neuron())
    v = None if kind == "SDSA-2" else RepConv(dim, make_neuron())
    proj = RepConv(dim, nn.Identity())
    if v is None or kind == "SDSA-1":
        return ChannelMaskAttention(input=start, q=q, k=k, v=v, mask=behind, proj=proj)
    return MembraneSelfAttention(
        config.heads,
        input=start, q=q, k=k, v=v, neuron=behind, proj=proj,
        learn_scale=kind == "SDSA-4",
    )  # fmt: skip


class MetaSpikeFormer(VisionNetwork):
    """Spike-driven Transformer V2.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = MetaSpikeFormer(MetaSpikeFormerConfig((8, 8, 16, 16), heads=2, num_classes=10, T=1))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(
        self, config: MetaSpikeFormerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__(config, divisor=16)
        make_neuron = make_neuron or meta_spikeformer_neuron()
        widths = [config.widths[0] // 2, *config.widths]
        self.downs = meta_downsampling(config.channels, widths, make_neuron)
        self.stages = nn.ModuleList(
            nn.Sequential(*(_conv_block(width, make_neuron) for _ in range(depth)))
            for width, depth in zip(widths[:3], (1, 1, 2), strict=True)
        )
        self.stages.extend(
            nn.Sequential(*(Block(width, config, make_neuron) for _ in range(depth)))
            for width, depth in zip(widths[3:], (6, 2), strict=True)
        )
        self.neuron = make_neuron()
        self.head = nn.Linear(widths[-1], config.num_classes)
        self.head_kd = nn.Linear(widths[-1], config.num_classes) if config.distilled else None
        for head in (self.head, self.head_kd):
            if head is not None:
                initialise_layer(head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence, of two heads their mean: ``[T, N, num_classes]``."""
        spikes = self._features(x)
        logits: Tensor = self.head(spikes)
        return logits if self.head_kd is None else (logits + self.head_kd(spikes)) / 2

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[T, N, num_classes]`` for the labels, and for the teacher's.

        Raises:
            ValueError: the network was built without ``distilled=True``.
        """
        if self.head_kd is None:
            raise ValueError("this network has one head; build it with distilled=True")
        spikes = self._features(self.checked(x))
        return self.head(spikes), self.head_kd(spikes)

    def _features(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
        spikes: Tensor = self.neuron(x.mean((-2, -1)))
        return spikes


def _conv_block(dim: int, make_neuron: MakeNeuron) -> MetaConvBlock:
    return MetaConvBlock(dim, SeparableConv(dim, make_neuron), make_neuron)


PRESETS: dict[str, MetaSpikeFormerConfig] = {
    # 15.1 M in the paper; widths from the released settings for detection.
    "spike_driven_transformer_v2_8_256": MetaSpikeFormerConfig((64, 128, 256, 360)),
    "spike_driven_transformer_v2_8_384": MetaSpikeFormerConfig((96, 192, 384, 480)),
    "spike_driven_transformer_v2_8_512": MetaSpikeFormerConfig((128, 256, 512, 640)),
    # In the released code, without published results.
    "spike_driven_transformer_v2_8_768": MetaSpikeFormerConfig((192, 384, 768, 960)),
}

# What V3 calls so too.
STAGES: Replacements = {
    r"^downsample1_1\.": "downs.0.",
    r"^downsample1_2\.": "downs.1.",
    r"^downsample(\d)\.": r"downs.\1.",
    r"^ConvBlock1_1\.": "stages.0.",
    r"^ConvBlock1_2\.": "stages.1.",
    r"^ConvBlock2_1\.0\.": "stages.2.0.",
    r"^ConvBlock2_2\.0\.": "stages.2.1.",
    r"^block(\d)\.": r"stages.\1.",
}
_OURS: Replacements = {
    **STAGES,
    r"\.Conv\.pwconv1\.": ".separable.expand.conv.",
    r"\.Conv\.bn1\.": ".separable.expand.norm.",
    r"\.Conv\.lif1": ".separable.expand.neuron",
    r"\.Conv\.lif2": ".separable.neuron",
    r"\.Conv\.dwconv\.": ".separable.depthwise.",
    r"\.Conv\.pwconv2\.": ".separable.shrink.",
    r"\.Conv\.bn2\.": ".separable.norm.",
    r"\.conv([12])\.": r".conv\1.conv.",
    r"\.bn([12])\.": r".conv\1.norm.",
    r"\.lif([12])": r".conv\1.neuron",
    r"_conv\.0\.body\.0\.": ".first.",
    r"_conv\.0\.body\.1\.bn\.": ".first_norm.",
    r"_conv\.0\.body\.2\.0\.": ".depthwise.",
    r"_conv\.0\.body\.2\.1\.": ".second.",
    r"_conv\.0\.body\.2\.2\.": ".second_norm.",
    r"_conv\.1\.": ".norm.",
    r"\.attn\.head_lif": ".attn.input",
    r"\.attn\.attn_lif": ".attn.neuron",
    r"^lif": "neuron",
}


def _rename(key: str) -> str:
    return split_units(replace_in_turn(key, _OURS)).replace(".encode.", ".")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> MetaSpikeFormerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a Meta-SpikeFormer", "downs.0.conv", "stages.4.1.mlp.fc1.conv", "head")
    a, b, c, d = (ours[f"downs.{i}.conv.weight"].shape[0] for i in range(1, 5))
    hidden, width = ours["stages.4.1.mlp.fc1.conv.weight"].shape[:2]
    return MetaSpikeFormerConfig(
        widths=(a, b, c, d),
        heads=heads_of(kwargs, [8], c, d),
        image_size=kwargs.get("img_size_h", 224),
        channels=ours["downs.0.conv.weight"].shape[1],
        num_classes=ours["head.weight"].shape[0],
        T=kwargs.get("T", 1),
        mlp_ratio=hidden / width,
        distilled="head_kd.weight" in ours,
    )


FAMILY = Family(
    "spike_driven_transformer_v2",
    network=MetaSpikeFormer,
    presets=PRESETS,
    neuron=meta_spikeformer_neuron,
    official={
        "spike_driven_transformer_v2": Official(
            _config, _rename, mark="downsample1_1.encode_conv.weight"
        )
    },
)
