"""Spike-driven Transformer V3 (E-SpikeFormer): trained with integers, run with spikes.

Yao et al. 2025, "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv 2411.16061. Released code: BICLab/Spike-Driven-Transformer-V3, the smaller
networks (Model_Base). There is no time axis in training: a neuron fires one integer of 0 to D,
which at inference is D spikes (`spike_driven`). The large networks stand in a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rheobase.layers import (
    ConvNormNeuron,
    MembraneMlp,
    MembraneSelfAttention,
    MetaConvBlock,
    NeuronConvNorm,
    meta_downsampling,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_sizes
from rheobase.models._names import Replacements, heads_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spike_driven_transformer_v2 import STAGES
from rheobase.neurons import SpikeFiringApproximation, neuron_factory, spike_trains

__all__ = ["FAMILY", "PRESETS", "ESpikeFormer", "ESpikeFormerConfig", "spike_driven"]


@dataclass(frozen=True)
class ESpikeFormerConfig:
    """One E-SpikeFormer.

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the image, and of the last stage, also at 1/16.
        heads: attention heads; divides the last two widths.
        image_size: side of the images it is meant for; any multiple of 16 works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for: one, in which a neuron fires up to
            ``levels`` times.
        mlp_ratio: hidden width of the MLP over the channels of its stage.
        value_ratio: channels of the values over those of queries and keys.
        levels: the largest integer that a neuron fires.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    widths: tuple[int, int, int, int]
    heads: int = 8
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 1
    mlp_ratio: float = 4.0
    value_ratio: int = 4
    levels: int = 4

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or self.widths[0] % 2:
            raise ValueError(f"widths are four numbers, the first even, got {self.widths}")
        for width in self.widths[2:]:
            check_sizes(
                dim=width, dim_multiple=1, heads=self.heads, image_size=self.image_size,
                patch_size=16, channels=self.channels, num_classes=self.num_classes, T=self.T,
                mlp_ratio=self.mlp_ratio, value_ratio=self.value_ratio, levels=self.levels,
                width=min(self.widths),
            )  # fmt: skip

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"levels": self.levels}


def e_spikeformer_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: integers from 0 to 4, over 4."""
    return neuron_factory(SpikeFiringApproximation, **kwargs)


class SeparableConv(nn.Module):
    """Wider, channel by channel, narrower, each with its neuron before it."""

    def __init__(self, dim: int, kernel_size: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        wide = 2 * dim
        self.expand = NeuronConvNorm(dim, wide, make_neuron())
        self.depthwise = NeuronConvNorm(
            wide, wide, make_neuron(), kernel_size=kernel_size, groups=wide
        )
        self.shrink = NeuronConvNorm(wide, dim, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        y: Tensor = self.shrink(self.depthwise(self.expand(x)))
        return y


class Block(nn.Module):
    """Separable convolution, attention and MLP, each added to the membranes."""

    def __init__(self, dim: int, config: ESpikeFormerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        values = dim * config.value_ratio
        self.separable = SeparableConv(dim, 3, make_neuron)
        self.attn = MembraneSelfAttention(
            config.heads,
            input=make_neuron(),
            q=ConvNormNeuron(dim, dim, make_neuron()),
            k=ConvNormNeuron(dim, dim, make_neuron()),
            v=ConvNormNeuron(dim, values, make_neuron()),
            neuron=make_neuron(),
            proj=ConvNormNeuron(values, dim, nn.Identity()),
            scale=2.0 * (dim // config.heads) ** -0.5,
        )
        self.mlp = MembraneMlp(dim, int(dim * config.mlp_ratio), make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        x = x + self.separable(x)
        x = x + self.attn(x)
        x = x + self.mlp(x)
        return x


class ESpikeFormer(VisionNetwork):
    """Spike-driven Transformer V3.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = ESpikeFormer(ESpikeFormerConfig((8, 8, 16, 16), heads=2, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(self, config: ESpikeFormerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, divisor=16)
        make_neuron = make_neuron or e_spikeformer_neuron(**config.neuron_options)
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
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``."""
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
        # The head reads the integers themselves.
        logits: Tensor = self.head(self.neuron(x.mean((-2, -1))) * self.config.levels)
        return logits


def _conv_block(dim: int, make_neuron: MakeNeuron) -> MetaConvBlock:
    return MetaConvBlock(dim, SeparableConv(dim, 7, make_neuron), make_neuron)


@contextmanager
def spike_driven(net: ESpikeFormer) -> Iterator[None]:
    """Within the block, every layer but the first adds up weights of binary spikes alone.

    An integer becomes D spikes, each layer runs on every one of them, and its outputs are
    averaged: equal to what the integers give, up to the order of additions. (The products of the
    attention are of counts of spikes, in either case.)

    Raises:
        ValueError: when the network runs, that a layer reads something else than spikes.
    """
    levels = net.config.levels

    def on_spikes(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        share = levels if module is net.head else 1
        trains = spike_trains(inputs[0] / share, levels)
        if isinstance(module, nn.Linear):
            summed = [F.linear(spikes, module.weight) for spikes in trains]
        else:
            summed = [module._conv_forward(spikes, module.weight, None) for spikes in trains]
        mean: Tensor = share * torch.stack(summed).mean(0)
        if module.bias is None:
            return mean
        wanted = (-1,) if isinstance(module, nn.Linear) else (-1, 1, 1)
        return mean + module.bias.view(wanted)

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(on_spikes) for layer in layers[1:]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


PRESETS: dict[str, ESpikeFormerConfig] = {
    "spike_driven_transformer_v3_t": ESpikeFormerConfig((24, 48, 96, 128)),
    "spike_driven_transformer_v3_s": ESpikeFormerConfig((32, 64, 128, 192)),
    "spike_driven_transformer_v3_m": ESpikeFormerConfig((48, 96, 192, 240)),
    "spike_driven_transformer_v3_l": ESpikeFormerConfig((64, 128, 256, 360)),
}

_OURS: Replacements = {
    **STAGES,
    r"\.(Conv|conv)\.(pwconv1\.|spike1)": r".separable.expand.\2",
    r"\.(Conv|conv)\.(dwconv\.|spike2)": r".separable.depthwise.\2",
    r"\.(Conv|conv)\.(pwconv2\.|spike3)": r".separable.shrink.\2",
    r"\.(pwconv1|dwconv|pwconv2|q_conv|k_conv|v_conv|proj_conv)\.0\.": r".\1.conv.",
    r"\.(pwconv1|dwconv|pwconv2|q_conv|k_conv|v_conv|proj_conv)\.1\.": r".\1.norm.",
    r"\.(pwconv1|dwconv|pwconv2)\.": ".",
    r"\.([qkv]|proj)_conv\.": r".\1.",
    r"(\.separable\.\w+)\.spike\d": r"\1.neuron",
    r"\.conv([12])\.": r".conv\1.conv.",
    r"\.bn([12])\.": r".conv\1.norm.",
    r"\.spike([12])": r".conv\1.neuron",
    r"\.attn\.head_spike": ".attn.input",
    r"\.attn\.attn_spike": ".attn.neuron",
    r"_spike(?=\.|$)": "_lif",
    r"^spike": "neuron",
}


def _rename(key: str) -> str:
    return split_units(replace_in_turn(key, _OURS)).replace(".encode.", ".")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> ESpikeFormerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "an E-SpikeFormer", "downs.0.conv", "stages.4.1.mlp.fc1.conv", "head")
    a, b, c, d = (ours[f"downs.{i}.conv.weight"].shape[0] for i in range(1, 5))
    return ESpikeFormerConfig(
        widths=(a, b, c, d),
        heads=heads_of(kwargs, [8], c, d),
        image_size=kwargs.get("img_size_h", 224),
        channels=ours["downs.0.conv.weight"].shape[1],
        num_classes=ours["head.weight"].shape[0],
        mlp_ratio=ours["stages.4.1.mlp.fc1.conv.weight"].shape[0] / d,
        value_ratio=ours["stages.4.1.attn.v.conv.weight"].shape[0] // d,
    )


FAMILY = Family(
    "spike_driven_transformer_v3",
    network=ESpikeFormer,
    presets=PRESETS,
    neuron=e_spikeformer_neuron,
    official={
        "spike_driven_transformer_v3": Official(
            _config, _rename, mark="ConvBlock1_1.0.Conv.pwconv1.0.weight"
        )
    },
)
