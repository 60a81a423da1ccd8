"""The large Spike-driven Transformers V3, which are pre-trained by masking (that is not here).

Yao et al. 2025, arXiv 2411.16061. Released code: BICLab/Spike-Driven-Transformer-V3, Model_Large.
Neurons fire integers as in the smaller networks (`rheobase.models.spike_driven_transformer_v3`);
convolution stages lead to one stage of attention, whose branches are scaled channel by channel.

Where code and paper differ: the released network of 83 million parameters fails when called (names
that are not defined); what it was to compute is plain from its text, and is computed here. In the
released code the head for the labels reads membranes, and only that for the teacher spikes:
``compat="official"`` does so; without it both read spikes, as in the smaller networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import (
    DropPath,
    MembraneMlp,
    MembraneSelfAttention,
    NeuronConvNorm,
    meta_downsampling,
    over_time,
)
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import (
    Replacements,
    depth_of,
    heads_of,
    need_layers,
    replace_in_turn,
    split_units,
)
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spike_driven_transformer_v2 import STAGES
from rheobase.neurons import SpikeFiringApproximation, neuron_factory

__all__ = ["FAMILY", "PRESETS", "LargeESpikeFormer", "LargeESpikeFormerConfig"]


@dataclass(frozen=True)
class LargeESpikeFormerConfig:
    """One large E-SpikeFormer.

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the image, the last those of the attention.
        linear_branch: a linear branch before the attention in every block (83 million).
        depth: attention blocks.
        heads: attention heads; divides the last width.
        image_size: side of the images it is meant for; any multiple of 16 works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for: one, in which a neuron fires up to 4 times.
        mlp_ratio: hidden width of the MLP over the channels.
        drop_path: largest probability of leaving out a branch in training, reached linearly.
        distilled: a second head, to be trained towards a teacher.
        compat: "official": the first head reads membranes (see the module's docstring).

    Raises:
        ValueError: sizes that do not divide each other.
    """

    widths: tuple[int, int, int]
    linear_branch: bool = False
    depth: int = 12
    heads: int = 8
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 1
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    distilled: bool = True
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        if len(self.widths) != 3 or self.widths[0] % 2:
            raise ValueError(f"widths are three numbers, the first even, got {self.widths}")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path is a probability below 1, got {self.drop_path}")
        check_sizes(
            dim=self.widths[-1], dim_multiple=2, heads=self.heads, image_size=self.image_size,
            patch_size=16, channels=self.channels, num_classes=self.num_classes, T=self.T,
            mlp_ratio=self.mlp_ratio, depth=self.depth, width=min(self.widths),
        )  # fmt: skip


def large_neuron(**kwargs: Any) -> MakeNeuron:
    """The code's neuron: integers from 0 to 4, over 4, halves rounded up."""
    return neuron_factory(SpikeFiringApproximation, **({"halves": "up"} | kwargs))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions around four times the width, added to the membranes."""

    def __init__(self, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.conv1 = NeuronConvNorm(dim, 4 * dim, make_neuron(), kernel_size=3, bias=True)
        self.conv2 = NeuronConvNorm(4 * dim, dim, make_neuron(), kernel_size=3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        y: Tensor = x + self.conv2(self.conv1(x))
        return y


class RepLinear(nn.Module):
    """Two linear maps with batch norms, one map at inference; then a norm and a neuron, or not."""

    def __init__(self, dim: int, hidden: int, norm: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, hidden, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(hidden)
        self.second = nn.Conv2d(hidden, dim, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(dim)
        self.norm = norm
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to what the neuron makes of the same shape."""
        y = over_time(
            x, self.first, self.first_norm, self.second, self.second_norm, self.norm
        )  # fmt: skip
        out: Tensor = self.neuron(y)
        return out


class Block(nn.Module):
    """Attention, then MLP, each scaled by channel and added to the membranes."""

    def __init__(
        self, config: LargeESpikeFormerConfig, drop: float, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        dim = config.widths[-1]
        wide = dim * 3 // 2
        self.rep_input: nn.Module | None = None
        if config.linear_branch:
            self.rep_input = make_neuron()
            self.rep = RepLinear(dim, dim, nn.Identity(), nn.Identity())
        self.attn = MembraneSelfAttention(
            config.heads,
            input=make_neuron(),
            q=RepLinear(dim, wide, nn.BatchNorm2d(dim), make_neuron()),
            k=RepLinear(dim, wide, nn.BatchNorm2d(dim), make_neuron()),
            v=RepLinear(dim, wide, nn.BatchNorm2d(dim), make_neuron()),
            neuron=make_neuron(),
            proj=RepLinear(dim, wide, nn.BatchNorm2d(dim), nn.Identity()),
        )
        self.mlp = MembraneMlp(dim, int(dim * config.mlp_ratio), make_neuron)
        self.layer_scale1 = nn.Parameter(torch.full((dim,), 1e-6))
        self.layer_scale2 = nn.Parameter(torch.full((dim,), 1e-6))
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        if self.rep_input is not None:
            x = x + self.rep(self.rep_input(x))
        x = x + self.drop_path(self.attn(x) * self.layer_scale1.view(-1, 1, 1))
        x = x + self.drop_path(self.mlp(x) * self.layer_scale2.view(-1, 1, 1))
        return x


class LargeESpikeFormer(VisionNetwork):
    """Large Spike-driven Transformer V3.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = LargeESpikeFormer(LargeESpikeFormerConfig((8, 8, 16), depth=1, num_classes=10))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(
        self, config: LargeESpikeFormerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__(config, divisor=16)
        make_neuron = make_neuron or large_neuron()
        widths = [config.widths[0] // 2, *config.widths]
        self.downs = meta_downsampling(config.channels, widths, make_neuron)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, make_neuron) for _ in range(depth)))
            for width, depth in zip(widths[:3], (1, 1, 2), strict=True)
        )
        drops = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.stages.append(nn.Sequential(*(Block(config, drop, make_neuron) for drop in drops)))
        self.neuron = make_neuron()
        self.head = nn.Linear(widths[-1], config.num_classes)
        self.head_kd = nn.Linear(widths[-1], config.num_classes) if config.distilled else None
        for head in (self.head, self.head_kd):
            if head is not None:
                nn.init.xavier_uniform_(head.weight)
                nn.init.zeros_(head.bias)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence, of two heads their mean: ``[T, N, num_classes]``."""
        labels, teacher = self._heads(x)
        return labels if teacher is None else (labels + teacher) / 2

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits ``[T, N, num_classes]`` for the labels, and for the teacher's if distilled."""
        return self._heads(self.checked(x))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
        membranes = x.mean((-2, -1))
        spikes = self.neuron(membranes) * 4
        labels: Tensor = self.head(membranes if self.config.compat == "official" else spikes)
        return labels, None if self.head_kd is None else self.head_kd(spikes)


PRESETS: dict[str, LargeESpikeFormerConfig] = {
    "spike_driven_transformer_v3_12_512": LargeESpikeFormerConfig(
        (128, 256, 512), linear_branch=True
    ),
    "spike_driven_transformer_v3_12_768": LargeESpikeFormerConfig((196, 384, 768)),
}

_OURS: Replacements = {
    **STAGES,
    r"\.rep_conv\.conv1\.0\.": ".rep.first.",
    r"\.rep_conv\.conv1\.1\.": ".rep.first_norm.",
    r"\.rep_conv\.conv2\.0\.": ".rep.second.",
    r"\.rep_conv\.conv2\.1\.": ".rep.second_norm.",
    r"_conv\.0\.conv1\.0\.": ".first.",
    r"_conv\.0\.conv1\.1\.": ".first_norm.",
    r"_conv\.0\.conv2\.0\.": ".second.",
    r"_conv\.0\.conv2\.1\.": ".second_norm.",
    r"_conv\.1\.": ".norm.",
    r"\.conv([12])\.0\.0\.": r".conv\1.conv.",
    r"\.conv([12])\.0\.1\.": r".conv\1.norm.",
    r"\.neuron([12])": r".conv\1.neuron",
    r"\.attn\.head_lif": ".attn.input",
    r"\.attn\.attn_lif": ".attn.neuron",
    r"^(stages\.3\.\d+)\.lif": r"\1.rep_input",
    r"^lif": "neuron",
}


def _rename(key: str) -> str:
    return split_units(replace_in_turn(key, _OURS)).replace(".encode.", ".")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> LargeESpikeFormerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(
        ours,
        "a large E-SpikeFormer",
        "downs.3.conv",
        "stages.3.0.mlp.fc1.conv",
        "head",
    )
    a, b, c = (ours[f"downs.{i}.conv.weight"].shape[0] for i in (1, 2, 3))
    return LargeESpikeFormerConfig(
        widths=(a, b, c),
        linear_branch="stages.3.0.rep.first.weight" in ours,
        depth=depth_of(ours, "stages.3"),
        heads=heads_of(kwargs, [8], c),
        channels=ours["downs.0.conv.weight"].shape[1],
        num_classes=ours["head.weight"].shape[0],
        T=kwargs.get("T", 1),
        mlp_ratio=ours["stages.3.0.mlp.fc1.conv.weight"].shape[0] / c,
        distilled="head_kd.weight" in ours,
    )


FAMILY = Family(
    "spike_driven_transformer_v3_large",
    network=LargeESpikeFormer,
    presets=PRESETS,
    neuron=large_neuron,
    official={
        "spike_driven_transformer_v3": Official(
            _config, _rename, mark="ConvBlock1_1.0.conv1.0.0.weight"
        )
    },
)
