"""Spiking Conformer: seizures in raw EEG, by spiking convolutions and a spiking transformer.

Chen et al. 2024, "Epilepsy Seizure Detection and Prediction using an Approximate Spiking
Convolutional Transformer", arXiv 2402.09424, has no public code. Of it were at hand the abstract
and a public review of it, which tell its parts: a temporal spiking convolution of 1 x 25 samples, a
spatial one over all electrodes, both of stride 1 and with batch norm; spiking encoder blocks; a
head. A reconstruction. The rest is chosen here: what these leave open is that of the EEG Conformer
(Song et al. 2023, IEEE TNSRE 31), 40 channels, average pooling of 75 samples by 15 and a 1x1
convolution; the blocks are Spikformer's. The approximate neuron layer, which spares 38 % of the
updates, is not here: what it leaves out was not to be had. No published number holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rheobase.layers import (
    ConvNormNeuron,
    SpikingBlock,
    SpikingMlp,
    SpikingSelfAttention,
    over_time,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import as_sequence, check_divides, check_positive
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "SpikingConformer", "SpikingConformerConfig"]

_KERNEL = 25
_POOL, _STRIDE = 75, 15


@dataclass(frozen=True)
class SpikingConformerConfig:
    """One Spiking Conformer.

    Args:
        electrodes: channels of the recording.
        samples: of a segment it is meant for; any other of 99 or more works.
        dim: channels of a token.
        depth: blocks.
        heads: of the attention; divides ``dim``.
        num_classes: outputs.
        T: time steps that a segment is repeated for.
        mlp_ratio: hidden width of the MLP over ``dim``.

    Raises:
        ValueError: sizes that do not divide each other, or too few samples for one token.
    """

    electrodes: int = 22
    samples: int = 1024
    dim: int = 40
    depth: int = 6
    heads: int = 10
    num_classes: int = 2
    T: int = 4
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        check_positive(
            electrodes=self.electrodes, dim=self.dim, depth=self.depth, T=self.T,
            num_classes=self.num_classes, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip
        check_divides("heads", self.heads, self.dim, f"dim={self.dim}")
        if self.samples < _KERNEL + _POOL - 1:
            raise ValueError(
                f"a segment needs {_KERNEL + _POOL - 1} samples for one token, got {self.samples}"
            )


class SpikingConformer(nn.Module):
    """Spiking Conformer, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default Spikformer's.

    >>> import torch
    >>> net = SpikingConformer(SpikingConformerConfig(depth=1))
    >>> net(torch.randn(2, 22, 256)).shape
    torch.Size([4, 2, 2])
    """

    def __init__(
        self, config: SpikingConformerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__()
        make_neuron = make_neuron or spikformer_neuron()
        self.config = config
        self.T = config.T
        dim = config.dim
        self.temporal, self.temporal_norm = nn.Conv2d(1, dim, (1, _KERNEL)), nn.BatchNorm2d(dim)
        self.temporal_neuron = make_neuron()
        self.spatial = nn.Conv2d(dim, dim, (config.electrodes, 1))
        self.spatial_norm, self.spatial_neuron = nn.BatchNorm2d(dim), make_neuron()
        self.pool = nn.AvgPool2d((1, _POOL), (1, _STRIDE))
        self.tokens = ConvNormNeuron(dim, dim, make_neuron(), bias=True)
        self.blocks = nn.ModuleList(
            SpikingBlock(
                SpikingSelfAttention(dim, config.heads, make_neuron),
                SpikingMlp(dim, int(dim * config.mlp_ratio), make_neuron),
            )
            for _ in range(config.depth)
        )
        self.head = nn.Linear(dim, config.num_classes)
        initialise_layer(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over time is the answer.

        Args:
            x: segments ``[N, electrodes, samples]``, repeated over T, or a sequence of them
                ``[T, N, electrodes, samples]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or electrodes, too few samples, or an empty input.
        """
        wanted = self.config.electrodes
        if x.dim() not in (3, 4) or x.shape[-2] != wanted or x.shape[-1] < _KERNEL + _POOL - 1:
            raise ValueError(
                f"the network takes segments [N, {wanted}, samples] of {_KERNEL + _POOL - 1} "
                f"samples or more, or sequences of them, got {list(x.shape)}"
            )
        x = as_sequence(x.unsqueeze(-3), steps=self.T, channels=1)
        x = over_time(x, self.temporal, self.temporal_norm, self.temporal_neuron)
        x = over_time(x, self.spatial, self.spatial_norm, self.spatial_neuron)
        x = self.tokens(over_time(x, self.pool))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


PRESETS = {
    # CHB-MIT: 22 electrodes, here 4 seconds at 256 Hz.
    "spiking_conformer_chbmit": SpikingConformerConfig(),
}

FAMILY = Family(
    "spiking_conformer", network=SpikingConformer, presets=PRESETS, neuron=spikformer_neuron
)
