"""Spikeformer with a convolutional tokenizer (CT): real attention over time, then over space.

Li et al. 2024, "Spikeformer: Training high-performance spiking neural network with transformer",
Neurocomputing 574, 127279, arXiv 2211.10686; released code: Loydian/Spikeformer. The tokenizer is
of spiking SEW blocks and the MLPs have spiking neurons; attention is the softmax attention of
TimeSformer. The ImageNet networks have analog neurons (`PLIAF`), whose outputs are real. That of 7
blocks has 39.32 million parameters in the released code, and so here; 38.75 are published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from rheobase.layers import ConvNormNeuron, DropPath, over_time
from rheobase.models._initialise import initialise_linear
from rheobase.models._inputs import check_sizes
from rheobase.models._names import Replacements, depth_of, heads_of, need_layers, replace_in_turn
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import PLIAF, PLIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "Block", "SEWBlock", "SpikeformerCT", "SpikeformerCTConfig"]


@dataclass(frozen=True)
class SpikeformerCTConfig:
    """One Spikeformer.

    Args:
        depth: number of attention blocks.
        dim: number of channels of a token.
        heads: attention heads; divides ``dim``.
        stages: stages of the tokenizer; each halves the image and doubles the channels, to ``dim``.
        blocks_per_stage: SEW blocks of a stage.
        kernel_size: of the tokenizer's convolutions.
        image_size: side of the images; position embeddings are stretched to others.
        channels: input channels.
        num_classes: outputs.
        T: time steps; time embeddings are stretched to others.
        mlp_ratio: hidden width of the MLP over ``dim``.
        analog: neurons put out their membrane (PLIAF) instead of spikes (PLIF).
        drop_path: largest probability of stochastic depth, of the last block.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int
    dim: int
    heads: int
    stages: int
    blocks_per_stage: int = 2
    kernel_size: int = 3
    image_size: int = 128
    channels: int = 2
    num_classes: int = 10
    T: int = 4
    mlp_ratio: float = 2.0
    analog: bool = False
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(
            dim=self.dim, dim_multiple=2 ** (self.stages - 1), heads=self.heads,
            image_size=self.image_size, patch_size=2**self.stages, depth=self.depth,
            stages=self.stages, blocks_per_stage=self.blocks_per_stage, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"analog": self.analog}


def spikeformer_neuron(*, analog: bool = False, **kwargs: Any) -> MakeNeuron:
    """The paper's neuron: PLIF or PLIAF, tau 2, reset detached, sigmoid surrogate with alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(PLIAF if analog else PLIF, **(defaults | kwargs))


class SEWBlock(nn.Module):
    """Two convolutions, added to a shortcut that is averaged and convolved where sizes change."""

    def __init__(
        self, channels: int, width: int, kernel_size: int, stride: int, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvNormNeuron(channels, width, make_neuron(), kernel_size=kernel_size, stride=stride),
            ConvNormNeuron(width, width, make_neuron(), kernel_size=kernel_size),
        )
        self.pool = nn.AvgPool2d(stride)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = ConvNormNeuron(channels, width, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H / stride, W / stride]``."""
        identity = x if self.shortcut is None else self.shortcut(over_time(x, self.pool))
        y: Tensor = self.branch(x) + identity
        return y


class Attention(nn.Module):
    """Softmax attention along the last axis but one."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., tokens, C]`` to the same shape."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.transpose(-4, -2).unbind(-3)  # each [..., heads, tokens, d]
        y = scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(-2, -3).flatten(-2))
        return out


class Block(nn.Module):
    """Attention over time, attention over space, and an MLP with neurons, each added."""

    def __init__(
        self, config: SpikeformerCTConfig, drop_path: float, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.temporal_norm = nn.LayerNorm(dim, eps=1e-6)
        self.temporal = Attention(dim, config.heads)
        self.temporal_fc = nn.Linear(dim, dim)
        self.spatial_norm = nn.LayerNorm(dim, eps=1e-6)
        self.spatial = Attention(dim, config.heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, hidden)
        self.neuron = make_neuron()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, tokens, C]`` to the same shape."""
        over_steps = self.temporal_norm(x).movedim(0, 2)
        x = x + self.temporal_fc(self.drop_path(self.temporal(over_steps).movedim(2, 0)))
        x = x + self.drop_path(self.spatial(self.spatial_norm(x)))
        y: Tensor = x + self.drop_path(self.fc2(self.neuron(self.fc1(self.mlp_norm(x)))))
        return y


class SpikeformerCT(VisionNetwork):
    """Spikeformer: T steps in, one prediction out.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = SpikeformerCT(SpikeformerCTConfig(depth=1, dim=16, heads=2, stages=2, image_size=16))
    >>> net(torch.rand(4, 2, 2, 16, 16)).shape
    torch.Size([1, 2, 10])
    """

    causal = False  # attention over time sees every step

    def __init__(self, config: SpikeformerCTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, 2**config.stages)
        make_neuron = make_neuron or spikeformer_neuron(**config.neuron_options)
        self.tokenizer = _tokenizer(config, make_neuron)
        side = config.image_size // 2**config.stages
        self.position = nn.Parameter(torch.empty(1, side * side, config.dim))
        self.time = nn.Parameter(torch.zeros(1, config.T, config.dim))
        drops = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config, p, make_neuron) for p in drops)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.pool = nn.Linear(config.dim, 1)
        self.head = nn.Linear(config.dim, config.num_classes)
        self._initialise()

    def logits(self, x: Tensor) -> Tensor:
        """``[1, N, num_classes]``: tokens of all steps are averaged by weights that are learnt."""
        x = self.tokenizer(x)
        x = self._embed(x.flatten(3).mT, x.shape[-2:])
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).movedim(0, 1).flatten(1, 2)
        pooled = self.pool(x).softmax(1).mT @ x
        logits: Tensor = self.head(pooled).movedim(1, 0)
        return logits

    def _embed(self, x: Tensor, sides: torch.Size) -> Tensor:
        """Add position and time embeddings to ``[T, N, tokens, C]``, stretched where needed."""
        position, time = self.position.mT, self.time.mT
        if position.shape[-1] != x.shape[2]:
            side = self.config.image_size // 2**self.config.stages
            grid = position.unflatten(-1, (side, side))  # type: ignore[no-untyped-call]
            position = interpolate(grid, size=sides, mode="nearest").flatten(2)
        if time.shape[-1] != x.shape[0]:
            time = interpolate(time, size=x.shape[0], mode="nearest")
        return x + position.mT + time.movedim(-1, 0).unsqueeze(1)

    def _initialise(self) -> None:
        initialise_linear(self)
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.tokenizer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        for block in list(self.blocks)[1:]:
            assert isinstance(block, Block)
            nn.init.zeros_(block.temporal_fc.weight)


def _tokenizer(config: SpikeformerCTConfig, make_neuron: MakeNeuron) -> nn.Sequential:
    """SEW blocks; the first of each stage halves the image."""
    stages, count = config.stages, config.blocks_per_stage
    widths = [config.dim // 2 ** (stages - 1 - i) for i in range(stages) for _ in range(count)]
    return nn.Sequential(
        *(
            SEWBlock(a, b, config.kernel_size, 1 if i % count else 2, make_neuron)
            for i, (a, b) in enumerate(pairwise([config.channels, *widths]))
        )
    )


PRESETS: dict[str, SpikeformerCTConfig] = {
    "spikeformer_ct_7_3x2x4": SpikeformerCTConfig(
        7, 512, 8, 4, image_size=224, channels=3, num_classes=1000, mlp_ratio=3.0, analog=True
    ),
    "spikeformer_ct_cifar10dvs_7_3x2x3": SpikeformerCTConfig(7, 256, 4, 3),
    "spikeformer_ct_dvs128_7_5x3x1": SpikeformerCTConfig(
        7, 256, 4, 3, blocks_per_stage=1, kernel_size=5, num_classes=11, T=16
    ),
}

_OURS: Replacements = {
    r"^patch_embed\.conv_layers\.": "tokenizer.",
    r"temporal_norm1\.": "temporal_norm.",
    r"temporal_attn\.": "temporal.",
    r"\.norm1\.": ".spatial_norm.",
    r"\.attn\.": ".spatial.",
    r"\.norm2\.": ".mlp_norm.",
    r"\.mlp\.mlp\.0\.0\.": ".fc1.",
    r"\.mlp\.mlp\.1(?=\.|$)": ".neuron",
    r"\.mlp\.mlp\.2\.0\.": ".fc2.",
    r"^attention_pool\.": "pool.",
    r"^pos_embed$": "position",
    r"^time_embed$": "time",
    r"\.residual_function\.": ".branch.",
    r"\.shortcut\.1\.": ".shortcut.",
    r"\.(branch\.\d|shortcut)\.0\.0\.": r".\1.conv.",
    r"\.(branch\.\d|shortcut)\.0\.1\.": r".\1.norm.",
    r"\.(branch\.\d|shortcut)\.1(?=\.|$)": r".\1.neuron",
}


def _rename(key: str) -> str:
    return replace_in_turn(key.removeprefix("model."), _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikeformerCTConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a Spikeformer", "tokenizer.0.branch.0.conv", "position", "blocks.0.fc1")
    num_classes, dim = ours["head.weight"].shape
    count = depth_of(ours, "tokenizer")
    convs = [ours[f"tokenizer.{i}.branch.0.conv.weight"] for i in range(count)]
    stages = [len(list(group)) for _, group in groupby(conv.shape[0] for conv in convs)]
    channels = convs[0].shape[1]
    known = [p for p in PRESETS.values() if (p.dim, p.num_classes) == (dim, num_classes)]
    return SpikeformerCTConfig(
        depth=depth_of(ours, "blocks"),
        dim=dim,
        heads=heads_of(kwargs, [p.heads for p in known]),
        stages=len(stages),
        blocks_per_stage=stages[0],
        kernel_size=convs[0].shape[-1],
        image_size=round(ours["position"].shape[1] ** 0.5) * 2 ** len(stages),
        channels=channels,
        num_classes=num_classes,
        T=ours["time"].shape[1],
        mlp_ratio=ours["blocks.0.fc1.weight"].shape[0] / dim,
        analog="LIAF" in kwargs.get("act", "LIAF" if channels == 3 else ""),
    )


FAMILY = Family(
    "spikeformer_ct",
    network=SpikeformerCT,
    presets=PRESETS,
    neuron=spikeformer_neuron,
    official={"spikeformer_ct": Official(_config, _rename)},
)
