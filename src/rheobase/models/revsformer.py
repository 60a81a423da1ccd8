"""RevSFormer: a Spikingformer whose blocks are reversible, so that depth costs no memory.

Zhang & Zhang 2024, "Memory-Efficient Reversible Spiking Neural Networks", arXiv 2312.07922;
released code: mi804/RevSNN. Stem, attention and MLP are Spikingformer's. The tokens enter twice, as
the two halves of `rheobase.layers.ReversibleSequence`, and the classifier sees both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import MembraneBlock, ReversibleSequence
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice
from rheobase.models._names import depth_of, heads_of, need_layers
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikingformer import FAMILY as SPIKINGFORMER
from rheobase.models.spikingformer import (
    SpikingformerConfig,
    Stem,
    spikingformer_neuron,
)

__all__ = ["FAMILY", "PRESETS", "RevSFormer", "RevSFormerConfig"]


@dataclass(frozen=True)
class RevSFormerConfig(SpikingformerConfig):
    """One RevSFormer: the fields of `SpikingformerConfig`, and one more.

    Args:
        compat: "official": batch norms update their running statistics in the second run of a
            block too, as in the released code; None: only in the first.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("compat", self.compat, (None, "official"))


class RevSFormer(VisionNetwork):
    """RevSFormer.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = RevSFormer(RevSFormerConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: RevSFormerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or spikingformer_neuron(**config.neuron_options)
        self.stem = Stem(config, make_neuron)
        hidden = int(config.dim * config.mlp_ratio)
        blocks = [
            MembraneBlock(config.dim, config.heads, hidden, make_neuron)
            for _ in range(config.depth)
        ]
        self.blocks = ReversibleSequence(
            ((block.attn, block.mlp) for block in blocks),
            update_twice=config.compat == "official",
        )
        self.head = nn.Linear(2 * config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``."""
        x = self.stem(x)
        x = self.blocks(torch.cat([x, x], dim=2))
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


def _events(num_classes: int) -> RevSFormerConfig:
    return RevSFormerConfig(
        depth=2, dim=256, heads=16, image_size=128, channels=2, num_classes=num_classes,
        T=16, patch_size=16, tau=1.5,
    )  # fmt: skip


PRESETS: dict[str, RevSFormerConfig] = {
    **{
        f"revsformer_cifar{n}_{depth}_384": RevSFormerConfig(depth, 384, heads, num_classes=n)
        for n, heads in ((10, 12), (100, 8))
        for depth in (2, 4)
    },
    "revsformer_cifar10dvs_2_256": _events(10),
    "revsformer_dvs128_2_256": _events(11),
}


def _rename(key: str) -> str | None:
    """Spikingformer's names, but for where the branches of a block stand."""
    key = re.sub(r"reversible_blocks\.(\d+)\.f_block\.", r"\1.attn.", key)
    key = re.sub(r"reversible_blocks\.(\d+)\.g_block\.", r"\1.mlp.", key)
    name = SPIKINGFORMER.official["spikingformer"].rename(key)
    if name is None:
        return None
    name = re.sub(r"^blocks\.(\d+)\.attn\.", r"blocks.f.\1.", name)
    return re.sub(r"^blocks\.(\d+)\.mlp\.", r"blocks.g.\1.", name)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> RevSFormerConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "a RevSFormer", "stem.first.conv", "blocks.g.0.fc1.conv", "head")
    num_classes, dim = ours["head.weight"].shape[0], ours["head.weight"].shape[1] // 2
    channels = ours["stem.first.conv.weight"].shape[1]
    events = channels == 2
    known = [p for p in PRESETS.values() if (p.dim, p.num_classes) == (dim, num_classes)]
    return RevSFormerConfig(
        depth=depth_of(ours, "blocks.f"),
        dim=dim,
        heads=heads_of(kwargs, [p.heads for p in known]),
        image_size=kwargs.get("img_size_h", 128 if events else 32),
        channels=channels,
        num_classes=num_classes,
        T=kwargs.get("T", 16 if events else 4),
        patch_size=kwargs.get("patch_size", 16 if events else 4),
        mlp_ratio=ours["blocks.g.0.fc1.conv.weight"].shape[0] / dim,
        tau=kwargs.get("tau", 1.5 if events else 2.0),
    )


FAMILY = Family(
    "revsformer",
    network=RevSFormer,
    presets=PRESETS,
    neuron=spikingformer_neuron,
    official={"rev_sresnet": Official(_config, _rename, mark="head.weight")},
)
