"""OST: a spiking transformer that runs for one time step.

Song et al. 2024, "One-step Spiking Transformer with a Linear Complexity", IJCAI 2024, p. 3142.
The stem runs for T steps; its spikes are then summed over time (time domain compression and
compensation), and everything behind it sees that one step. Released code: songxt3/OST, a file each
for ImageNet, CIFAR, CIFAR10-DVS and DVS128 Gesture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron, SpikingBlock, over_time, sew_join
from rheobase.layers.sequential import TimeSequential
from rheobase.models._initialise import initialise_linear
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikformer import spikformer_neuron
from rheobase.stateful import Stateful

__all__ = ["FAMILY", "OST", "PRESETS", "Block", "GatedMlp", "LinearAttention", "OSTConfig"]


@dataclass(frozen=True)
class OSTConfig:
    """One OST.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 8.
        image_size: side of the images it is meant for; any multiple of ``patch_size`` works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for in the stem.
        patch_size: pixels to a token's side; the last ``log2(patch_size)`` of the four stages of
            the stem halve the image.
        mlp_ratio: hidden width of the MLP over ``dim``.
        attention_dim: channels of queries, keys and values.
        thresholds: neurons behind each layer of the attention, whose spikes are added; their
            thresholds start evenly spaced from 1/2 on.
        halving: by a strided convolution of spikes ("conv") or average pooling ("average").
        compat: "official" keeps the thresholds of the attention: the CUDA kernel of the release
            takes constants in their place. Without it they are learnt, as in the paper. Its
            checkpoints give the same outputs either way.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int
    dim: int
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    T: int = 4
    patch_size: int = 4
    mlp_ratio: float = 4.0
    attention_dim: int = 64
    thresholds: int = 2
    halving: Literal["conv", "average"] = "conv"
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("patch_size", self.patch_size, (1, 2, 4, 8, 16))
        check_choice("halving", self.halving, ("conv", "average"))
        check_choice("compat", self.compat, (None, "official"))
        check_sizes(
            dim=self.dim, dim_multiple=8, heads=1, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
            attention_dim=self.attention_dim, thresholds=self.thresholds,
        )  # fmt: skip


class Stem(nn.Module):
    """Four convolutions to tokens over T steps, a position embedding, and the sum over time."""

    def __init__(self, config: OSTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim = config.dim
        widths = [config.channels, dim // 8, dim // 4, dim // 2, dim]
        self.stages = nn.ModuleList(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3) for a, b in pairwise(widths)
        )
        # Numbered as in the release, which with patches of 16 counts from the first stage on, and
        # else from the second.
        self.offset = 0 if config.patch_size == 16 else 1
        first_halved = 4 - int(math.log2(config.patch_size))
        self.halvings = nn.ModuleList(
            _halving(config, widths[i + 1], make_neuron) if i >= first_halved else nn.Identity()
            for i in range(self.offset, 4)
        )
        self.position = ConvNormNeuron(dim, dim, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [1, N, dim, H / patch, W / patch]``, of integers to 2 T."""
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i >= self.offset:
                x = self.halvings[i - self.offset](x)
        return sew_join(self.position(x), x, "ADD").sum(0, keepdim=True)


def _halving(config: OSTConfig, width: int, make_neuron: MakeNeuron) -> nn.Module:
    if config.halving == "average":
        return TimeSequential(nn.AvgPool2d(3, stride=2, padding=1))
    return ConvNormNeuron(width, width, make_neuron(), kernel_size=3, stride=2)


class MultiThreshold(Stateful):
    """The sum of neurons that see the same current, each with a threshold that may be learnt."""

    def __init__(self, count: int, learnt: bool, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.neurons = nn.ModuleList()
        for i in range(count):
            start = 0.5 + i / count
            neuron = make_neuron(v_threshold=start)
            neuron.v_threshold = nn.Parameter(torch.tensor(start), requires_grad=learnt)
            self.neurons.append(neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[1, N, C, H, W]`` to integers of the same shape."""
        return torch.stack([neuron(x) for neuron in self.neurons]).sum(0)


class LinearAttention(nn.Module):
    r"""Spiking linear transformation (SLT): attention without a map of tokens by tokens.

    .. math:: y = Q \odot \sum_{tokens} K \odot V

    with integers in Q and K; V is real, as in the release. The cost is linear in the tokens.
    """

    def __init__(self, config: OSTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, width, count = config.dim, config.attention_dim, config.thresholds
        learnt = config.compat is None
        fire = (MultiThreshold(count, learnt, make_neuron) for _ in range(3))
        self.q = ConvNormNeuron(dim, width, next(fire), bias=True)
        self.k = ConvNormNeuron(dim, width, next(fire), bias=True)
        self.v = nn.Conv2d(dim, width, 1)
        self.proj = ConvNormNeuron(width, dim, next(fire), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[1, N, C, H, W]`` to integers of the same shape."""
        weights = (self.k(x) * over_time(x, self.v)).sum((-2, -1), keepdim=True)
        y: Tensor = self.proj(self.q(x) * weights)
        return y


class GatedMlp(nn.Module):
    """Spiking gated feed-forward: half of the hidden channels fire, the other half scales them."""

    def __init__(self, dim: int, hidden: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(dim, 2 * hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.neuron = make_neuron()
        self.out = ConvNormNeuron(hidden, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[1, N, C, H, W]`` to spikes of the same shape."""
        value, gate = over_time(x, self.hidden).chunk(2, dim=2)
        y: Tensor = self.out(gate * over_time(value, self.norm, self.neuron))
        return y


class Block(SpikingBlock):
    """Attention, then MLP, each added to a stream of integers."""

    def __init__(self, config: OSTConfig, make_neuron: MakeNeuron) -> None:
        hidden = int(config.dim * config.mlp_ratio)
        super().__init__(
            LinearAttention(config, make_neuron), GatedMlp(config.dim, hidden, make_neuron)
        )


class OST(VisionNetwork):
    """One-step Spiking Transformer: T steps in, one step out.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold`` for those of the
            attention; default the paper's.

    >>> import torch
    >>> net = OST(OSTConfig(depth=1, dim=16))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    causal = False  # the sum over time needs every step

    def __init__(self, config: OSTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spikformer_neuron()
        self.stem = Stem(config, make_neuron)
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_linear(self)

    def logits(self, x: Tensor) -> Tensor:
        """Of the one step that a sequence ``[T, N, C, H, W]`` becomes: ``[1, N, num_classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


def _imagenet(depth: int, dim: int) -> OSTConfig:
    return OSTConfig(depth, dim, image_size=224, num_classes=1000, patch_size=16)


PRESETS: dict[str, OSTConfig] = {
    "ost_8_384": _imagenet(8, 384),
    "ost_6_512": _imagenet(6, 512),
    "ost_8_512": _imagenet(8, 512),
    "ost_10_512": _imagenet(10, 512),
    "ost_cifar10_4_384": OSTConfig(4, 384),
    "ost_cifar100_4_384": OSTConfig(4, 384, num_classes=100),
    "ost_cifar10dvs_2_256": OSTConfig(
        depth=2, dim=256, image_size=128, channels=2, T=16, patch_size=16
    ),
    "ost_dvs128_1_256": OSTConfig(
        depth=1, dim=256, image_size=128, channels=2, num_classes=11, T=16, patch_size=16,
        thresholds=1, halving="average",
    ),
}  # fmt: skip


_OURS: Replacements = {
    r"^block\.": "blocks.",
    r"attn\.to_project_fire_block\.fire_block": "attn.proj.neuron.neurons",
    r"attn\.to_([qk])_fire_block\.fire_block": r"attn.\1.neuron.neurons",
    r"dynamic_threshold$": "v_threshold",
    r"attn\.to_([qk])_bn\.": r"attn.\1.norm.",
    r"attn\.to_([qk])\.": r"attn.\1.conv.",
    r"attn\.to_v\.": "attn.v.",
    r"attn\.project_bn\.": "attn.proj.norm.",
    r"attn\.project\.": "attn.proj.conv.",
    r"sgfnn\.to_hidden_linear\.": "mlp.hidden.",
    r"sgfnn\.to_hidden_v_bn\.": "mlp.norm.",
    r"sgfnn\.to_hidden_v_lif": "mlp.neuron",
    r"sgfnn\.to_out\.": "mlp.out.conv.",
    r"sgfnn\.to_bn\.": "mlp.out.norm.",
    r"sgfnn\.to_lif": "mlp.out.neuron",
}


def _rename(key: str) -> str | None:
    if key == "pos_embed" or key.startswith("norm."):
        return None  # of the event files, never used
    if key.startswith("patch_embed."):
        key = split_units(key.removeprefix("patch_embed.")).replace("rpe.", "position.")
        key = re.sub(r"^proj(\d?)\.", lambda m: f"stages.{m[1] or 0}.", key)
        key = re.sub(r"^down_sample(\d?)\.", lambda m: f"halvings.{m[1] or 0}.", key)
        return f"stem.{key}"
    return replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> OSTConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "an OST", "stem.stages.0.conv", "blocks.0.mlp.hidden", "head")
    num_classes, dim = ours["head.weight"].shape
    channels = ours["stem.stages.0.conv.weight"].shape[1]
    halvings = {name.split(".")[2] for name in ours if name.startswith("stem.halvings.")}
    return OSTConfig(
        depth=depth_of(ours, "blocks"),
        dim=dim,
        image_size=kwargs.get(
            "img_size_h", 128 if channels == 2 else 224 if len(halvings) == 4 else 32
        ),
        channels=channels,
        num_classes=num_classes,
        T=kwargs.get("T", 16 if channels == 2 else 4),
        patch_size=2 ** len(halvings) if halvings else 16,
        mlp_ratio=ours["blocks.0.mlp.hidden.weight"].shape[0] / 2 / dim,
        attention_dim=ours["blocks.0.attn.v.weight"].shape[0],
        thresholds=sum(name.startswith("blocks.0.attn.q.neuron.") for name in ours),
        halving="conv" if halvings else "average",
    )


FAMILY = Family(
    "ost",
    network=OST,
    presets=PRESETS,
    neuron=spikformer_neuron,
    official={"ost": Official(_config, _rename)},
)
