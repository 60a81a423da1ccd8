"""AutoST: a spiking transformer whose widths and heads were searched without training.

Wang et al. 2024, "AutoST: Training-free Neural Architecture Search for Spiking Transformers",
ICASSP 2024, arXiv 2307.00293. The search is in `rheobase.models.autost_search`. The released code
(AlexandreWANG915/AutoST) has the network that is searched over, for CIFAR; the configurations that
were found are not in it. Branches begin with their neuron and end in a membrane, as in
Spikingformer; every block has its own number of heads and width of the MLP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rheobase.layers import MembraneBlock, MembraneStem
from rheobase.models._initialise import initialise_linear
from rheobase.models._inputs import check_choice, check_sizes
from rheobase.models._names import depth_of, need_layers, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official, Untold
from rheobase.neurons import PLIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "AutoST", "AutoSTConfig"]


@dataclass(frozen=True)
class AutoSTConfig:
    """One AutoST.

    Args:
        dim: number of channels of a token, a multiple of 8.
        mlp_ratios: hidden width of the MLP over ``dim``, of each block.
        heads: attention heads of each block; divide ``dim``.
        image_size: side of the images it is meant for; any multiple of ``patch_size`` works.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        patch_size: pixels to a token's side; the last ``log2(patch_size)`` of the four stages of
            the stem halve the image (4 in the released code).

    Raises:
        ValueError: sizes that do not fit each other.
    """

    dim: int
    mlp_ratios: tuple[float, ...]
    heads: tuple[int, ...]
    image_size: int = 32
    channels: int = 3
    num_classes: int = 10
    T: int = 4
    patch_size: int = 4

    def __post_init__(self) -> None:
        if not self.mlp_ratios or len(self.mlp_ratios) != len(self.heads):
            raise ValueError(
                "mlp_ratios and heads have one entry for each block, got "
                f"{self.mlp_ratios} and {self.heads}"
            )
        check_choice("patch_size", self.patch_size, (1, 2, 4, 8, 16))
        for heads, ratio in zip(self.heads, self.mlp_ratios, strict=True):
            check_sizes(
                dim=self.dim, dim_multiple=8, heads=heads, image_size=self.image_size,
                patch_size=self.patch_size, mlp_ratio=ratio, channels=self.channels,
                num_classes=self.num_classes, T=self.T,
            )  # fmt: skip

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.heads)


def autost_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: PLIF from tau 2 on, reset detached, sigmoid surrogate with alpha 4."""
    return neuron_factory(PLIF, **({"detach_reset": True, "surrogate": Sigmoid(4.0)} | kwargs))


class AutoST(VisionNetwork):
    """AutoST.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default the paper's.

    >>> import torch
    >>> net = AutoST(AutoSTConfig(dim=16, mlp_ratios=(2, 3), heads=(2, 4)))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: AutoSTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, config.patch_size)
        make_neuron = make_neuron or autost_neuron()
        self.stem = MembraneStem(
            config.channels, config.dim, config.patch_size, make_neuron, position=nn.Identity()
        )
        self.blocks = nn.ModuleList(
            MembraneBlock(config.dim, heads, int(config.dim * ratio), make_neuron, qkv_bias=True)
            for heads, ratio in zip(config.heads, config.mlp_ratios, strict=True)
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_linear(self)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


PRESETS: dict[str, AutoSTConfig] = {
    # Before any search: all blocks alike.
    "autost_cifar10_uniform_4_384": AutoSTConfig(384, (4,) * 4, (12,) * 4),
    "autost_cifar100_uniform_4_384": AutoSTConfig(384, (4,) * 4, (12,) * 4, num_classes=100),
    # A reconstruction: what the search found was not released. In its space only two totals of
    # mlp_ratios have the published 34.44 M parameters, 39 in 9 blocks and 37 in 10, of 512
    # channels. How they were shared out, and the heads, are not known.
    "autost_base": AutoSTConfig(
        512, (5, 5, 5, 4, 4, 4, 4, 4, 4), (8,) * 9, image_size=224, num_classes=1000,
        patch_size=16,
    ),
}  # fmt: skip


def _rename(key: str) -> str:
    key = re.sub(r"attn\.lif(?=\.|$)", "attn.input", split_units(key))
    key = key.replace("attn.attn.neuron", "attn.neuron")
    key = re.sub(r"^patch_embed\.proj(\d?)\.", lambda m: f"stem.stages.{m[1] or 0}.", key)
    return re.sub(r"^block\.", "blocks.", key).replace("patch_embed.rpe.", "stem.position.")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> AutoSTConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "an AutoST", "stem.stages.0.conv", "blocks.0.mlp.fc1.conv", "head")
    num_classes, dim = ours["head.weight"].shape
    if "num_heads" not in kwargs:
        raise Untold(
            "the weights do not tell the heads of each block; give kwargs num_heads=[...]",
            num_heads=[1] * depth_of(ours, "blocks"),
        )
    heads = kwargs["num_heads"]
    if isinstance(heads, int):
        raise ValueError(f"num_heads are of each block, such as {[heads, heads]}; got {heads}")
    hidden = [
        ours[f"blocks.{i}.mlp.fc1.conv.weight"].shape[0] for i in range(depth_of(ours, "blocks"))
    ]
    return AutoSTConfig(
        dim=dim,
        mlp_ratios=tuple(width / dim for width in hidden),
        heads=tuple(heads),
        image_size=kwargs.get("img_size_h", 32),
        channels=ours["stem.stages.0.conv.weight"].shape[1],
        num_classes=num_classes,
        T=kwargs.get("T", 4),
        patch_size=kwargs.get("patch_size", 4),
    )


FAMILY = Family(
    "autost",
    network=AutoST,
    presets=PRESETS,
    neuron=autost_neuron,
    official={"autost": Official(_config, _rename)},
)
