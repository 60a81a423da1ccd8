"""TE-Spikformer: Spikformer that attends over all steps, with batch group norm. A reconstruction.

Gao et al. 2024, "TE-Spikformer: Temporal-enhanced spiking neural network with transformer",
Neurocomputing 128268, has no public code, and neither its text nor its abstract was at hand. From
the surveys: spike spatio-temporal attention (SSTA) in attention's place, and BGN in the place of
batch norm in the tokenizer, for event data (DVS128 Gesture, CIFAR10-DVS, N-Caltech101). Chosen
here: the queries of a step attend to the keys of every step; the attention map is made of spikes;
BGN is the batch group norm of Zhou et al. 2020 (`rheobase.layers.BGN`); all sizes are Spikformer's.
No published number holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rheobase.layers import BGN, ConvNormNeuron, split_heads
from rheobase.models._inputs import check_divides
from rheobase.models._mixing import MixingSpikformer, like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import SpikformerConfig, spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "SpatioTemporalAttention", "TESpikformer", "TESpikformerConfig"]


@dataclass(frozen=True)
class TESpikformerConfig(SpikformerConfig):
    """One TE-Spikformer: the fields of `SpikformerConfig`, and one more.

    Args:
        norm_groups: groups of channels of the tokenizer's norms; divides ``dim // 8``.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    norm_groups: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        first = self.dim // 8
        check_divides(
            "norm_groups", self.norm_groups, first, f"the {first} channels of the first convolution"
        )


class SpatioTemporalAttention(nn.Module):
    r"""Spike spatio-temporal attention (SSTA): maps over the tokens of all steps, of spikes.

    .. math:: A_t = \mathrm{SN}(Q_t K_{1:T}^\top \cdot s), \qquad
       \mathrm{SSTA}(x)_t = \mathrm{SN}(\mathrm{BN}(W \, \mathrm{SN}(A_t V_{1:T} \cdot s)))

    Both inner neurons have threshold 1/2.
    """

    causal = False

    def __init__(self, config: TESpikformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, bias = config.dim, config.token_layers == "linear"
        self.heads, self.scale = config.heads, config.scale
        self.q = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.k = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.v = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.map = make_neuron(v_threshold=0.5)
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k, v = (split_heads(unit(x), self.heads) for unit in (self.q, self.k, self.v))
        k, v = _all_steps(k), _all_steps(v)
        attention = self.map(k.mT @ q * self.scale)
        y = (v @ attention).reshape(x.shape) * self.scale
        spikes: Tensor = self.proj(self.neuron(y))
        return spikes


def _all_steps(x: Tensor) -> Tensor:
    """``[T, N, heads, d, tokens] -> [N, heads, d, T * tokens]``."""
    return x.permute(1, 2, 3, 0, 4).flatten(3)


class TESpikformer(MixingSpikformer):
    """TE-Spikformer, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for those of the
            attention map and product; default Spikformer's.

    >>> import torch
    >>> net = TESpikformer(TESpikformerConfig(depth=1, dim=32, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: TESpikformerConfig, make_neuron: MakeNeuron | None = None) -> None:
        make = make_neuron or spikformer_neuron()
        super().__init__(config, make, lambda: SpatioTemporalAttention(config, make))
        for unit in (*self.stem.stages, self.stem.position):
            unit.norm = BGN(unit.norm.num_features, config.norm_groups)


PRESETS: dict[str, TESpikformerConfig] = {
    "te_spikformer_cifar10dvs_2_256": like(TESpikformerConfig, "spikformer_cifar10dvs_2_256"),
    "te_spikformer_dvs128_2_256": like(TESpikformerConfig, "spikformer_dvs128_2_256"),
    # N-Caltech101 has 101 classes, faces once.
    "te_spikformer_ncaltech101_2_256": like(
        TESpikformerConfig, "spikformer_cifar10dvs_2_256", num_classes=101
    ),
}

FAMILY = Family("te_spikformer", network=TESpikformer, presets=PRESETS, neuron=spikformer_neuron)
