"""SpikeBERT: a Spikformer that reads, taught by BERT.

Lv et al. 2023, "SpikeBERT: A Language Spikformer Learned from BERT with Knowledge Distillation",
arXiv 2308.15122; released code: Lvchangze/SpikeBERT. Spikes of the embedding are the same at every
step. There are no positions, and padding is read as any word: it attends, and counts in the mean.

The released MLP reshapes its hidden layer to the width of the stream and so cannot run; here, as
it must be meant, the hidden layer keeps its own width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rheobase.layers import attention_product, over_time, repeat, sew_join, split_heads
from rheobase.models._inputs import check_divides, check_positive
from rheobase.models._names import (
    Replacements,
    depth_of,
    heads_of,
    need_layers,
    replace_in_turn,
)
from rheobase.models._text import check_ids
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, neuron_factory
from rheobase.neurons.memoryless import fire
from rheobase.surrogate import ATan

__all__ = ["FAMILY", "PRESETS", "SpikeBERT", "SpikeBERTConfig", "spikebert_neuron"]


@dataclass(frozen=True)
class SpikeBERTConfig:
    """One SpikeBERT; the defaults are those of its second stage of distillation.

    Args:
        vocabulary: pieces of words that it knows; of cased BERT.
        dim: width, a multiple of ``heads``.
        depth: blocks.
        heads: of the attention.
        num_classes: outputs.
        T: time steps (released: 4; 16 in the first stage, 32 without distillation).
        tau: time constant of the neurons (10 in the first stage and without distillation).
        v_threshold: of the neurons; half as much behind the product of attention.
        scale: factor of that product.
        distilled: whether a layer of each block's own (``transforms``) turns its stream into what a
            layer of BERT is compared with; for `loss.teacher.features` of a run.

    Raises:
        ValueError: a size that is not positive, or ``heads`` that do not divide ``dim``.
    """

    vocabulary: int = 28996
    dim: int = 768
    depth: int = 12
    heads: int = 8
    num_classes: int = 2
    T: int = 4
    tau: float = 2.0
    v_threshold: float = 1.0
    scale: float = 0.125
    distilled: bool = True

    def __post_init__(self) -> None:
        check_positive(
            vocabulary=self.vocabulary, dim=self.dim, depth=self.depth, T=self.T,
            num_classes=self.num_classes, v_threshold=self.v_threshold, scale=self.scale,
        )  # fmt: skip
        check_divides("heads", self.heads, self.dim, f"dim={self.dim}")

    @property
    def neuron_options(self) -> dict[str, Any]:
        """Of the paper's neuron."""
        return {"tau": self.tau, "v_threshold": self.v_threshold}


def spikebert_neuron(**kwargs: Any) -> MakeNeuron:
    """LIF with the reset detached and an arctangent surrogate (alpha 2)."""
    return neuron_factory(LIF, **({"detach_reset": True, "surrogate": ATan(2.0)} | kwargs))


class LinearNormNeuron(nn.Module):
    """``neuron(norm(linear(x)))`` of every word: spikes out."""

    def __init__(self, inputs: int, outputs: int, neuron: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, L, inputs]`` to spikes ``[T, N, L, outputs]``."""
        return over_time(x, self.linear, self.norm, self.neuron)


class Attention(nn.Module):
    r"""Spiking self-attention of words, :math:`SN(Q K^\top V \cdot s)`, without softmax or mask."""

    def __init__(self, config: SpikeBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.heads, self.scale = config.heads, config.scale
        self.q, self.k, self.v, self.proj = (
            LinearNormNeuron(config.dim, config.dim, make_neuron()) for _ in range(4)
        )
        self.neuron = make_neuron(v_threshold=config.v_threshold / 2)

    def forward(self, x: Tensor) -> Tensor:
        """The stream ``[T, N, L, dim]`` to spikes of the same shape."""
        q, k, v = (split_heads(unit(x).mT, self.heads) for unit in (self.q, self.k, self.v))
        y = attention_product(q, k, v).flatten(2, 3).mT * self.scale
        spikes: Tensor = self.proj(self.neuron(y))
        return spikes


class Mlp(nn.Module):
    """Two layers, four times as wide between."""

    def __init__(self, config: SpikeBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.fc1 = LinearNormNeuron(config.dim, 4 * config.dim, make_neuron())
        self.fc2 = LinearNormNeuron(4 * config.dim, config.dim, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """The stream ``[T, N, L, dim]`` to spikes of the same shape."""
        spikes: Tensor = self.fc2(self.fc1(x))
        return spikes


class Block(nn.Module):
    """Attention, then MLP; their spikes are added to a stream of counts."""

    def __init__(self, config: SpikeBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.attn = Attention(config, make_neuron)
        self.mlp = Mlp(config, make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """The stream ``[T, N, L, dim]`` to the same shape."""
        x = sew_join(self.attn(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")


class SpikeBERT(nn.Module):
    """SpikeBERT: words to logits.

    Args:
        config: sizes.
        make_neuron: makes each neuron.

    >>> import torch
    >>> config = SpikeBERTConfig(100, dim=32, depth=1)
    >>> SpikeBERT(config, spikebert_neuron())(torch.randint(100, (3, 16))).shape
    torch.Size([4, 3, 2])
    """

    def __init__(self, config: SpikeBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        self.emb = nn.Embedding(config.vocabulary, config.dim)
        self.surrogate = ATan(2.0)
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        layers = config.depth if config.distilled else 0
        self.transforms = nn.ModuleList(
            nn.Sequential(nn.Linear(config.dim, config.dim), nn.LayerNorm(config.dim))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits; their mean over the first axis is the paper's output.

        Args:
            ids: numbers of words, int64 ``[N, L]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError, ValueError: ``ids`` are no such matrix, or hold what is no word.
        """
        check_ids(ids, self.config.vocabulary)
        x = repeat(fire(self.emb(ids), self.surrogate), self.T)
        transforms = self.transforms or [None] * len(self.blocks)
        for block, transform in zip(self.blocks, transforms, strict=True):
            x = block(x)
            if transform is not None:
                transform(x.mean(0))  # for who watches it: a teacher
        logits: Tensor = self.head(over_time(x, self.norm).mean(2))
        return logits


RENAMED: Replacements = {
    r"(?<=attn\.)attn_lif": "neuron",
    r"(?<=attn\.)last_": "proj_",
    r"(?<=attn\.)(\w+?)_m(?=\.|$)": r"\1.linear",
    r"(?<=attn\.)(\w+?)_ln(?=\.|$)": r"\1.norm",
    r"(?<=attn\.)(\w+?)_lif(?=\.|$)": r"\1.neuron",
    r"(?<=mlp\.)fc(\d)": r"fc\1.linear",
    r"(?<=mlp\.)ln(\d)": r"fc\1.norm",
    r"(?<=mlp\.)lif(\d)": r"fc\1.neuron",
    r"^(transforms\.\d+)\.fc": r"\1.0",
    r"^(transforms\.\d+)\.ln": r"\1.1",
    r"^last_ln": "norm",
    r"^classifier": "head",
}


def config_from_official(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]
) -> SpikeBERTConfig:
    """The config of an official state dict and the official keyword arguments."""
    need_layers(
        weights, "a SpikeBERT", "emb", "blocks.0.attn.q_m", "blocks.0.mlp.fc1", "classifier"
    )
    vocabulary, dim = weights["emb.weight"].shape
    return SpikeBERTConfig(
        vocabulary,
        dim,
        depth_of(weights, "blocks"),
        heads_of(kwargs, (8,), dim, name="heads"),
        num_classes=len(weights["classifier.weight"]),
        T=kwargs.get("T", 4),
        tau=kwargs.get("tau", 2.0),
        v_threshold=kwargs.get("common_thr", 1.0),
        scale=kwargs.get("qk_scale", 0.125),
        distilled="transforms.0.fc.weight" in weights,
    )


PRESETS = {
    "spikebert_12_768": SpikeBERTConfig(),
    "spikebert_6_768": SpikeBERTConfig(depth=6),
}

FAMILY = Family(
    "spikebert",
    network=SpikeBERT,
    presets=PRESETS,
    neuron=spikebert_neuron,
    official={
        "spikebert": Official(config_from_official, lambda key: replace_in_turn(key, RENAMED))
    },
)
