"""SMMT: images and sounds by a spiking transformer each, which then attend to each other.

Guo et al. 2023, "Transformer-based Spiking Neural Networks for Multimodal Audiovisual
Classification", IEEE TCDS 16(3), 1077-1086, has no public code (its repository holds links to
data), and only its abstract was at hand: uni-modal subnetworks for vision and sound, and a spiking
cross-attention module that fuses them. A reconstruction. All of the rest
is chosen here: each subnetwork is a Spikformer without its head; in the cross-attention queries are
of one modality, keys and values of the other, both ways at once, without softmax; the tokens' means
of both are classified together. No published number holds it, its sizes included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from rheobase.layers import SpikingMlp, SpikingSelfAttention, sew_join
from rheobase.models._inputs import as_sequence, check_positive
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import Block, SpikformerConfig, Stem, initialise, spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "SMMT", "CrossBlock", "SMMTConfig"]


@dataclass(frozen=True)
class SMMTConfig:
    """One SMMT.

    Args:
        depth: blocks of each subnetwork.
        cross_depth: blocks of cross-attention behind them.
        dim: channels of a token of either modality, a multiple of 8.
        heads: of all attention; divides ``dim``.
        channels: of images.
        image_size: side of the images it is meant for; any multiple of ``patch_size`` works.
        patch_size: pixels to a token's side, of images: 1, 2, 4, 8 or 16.
        audio_channels: of sounds, which come as pictures of bands over time.
        audio_size: side of the sounds it is meant for; any multiple of ``audio_patch`` works.
        audio_patch: bands, and steps of sound, to a token.
        num_classes: outputs.
        T: time steps that what stands still is repeated for.
        mlp_ratio: hidden width of the MLPs over ``dim``.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int = 2
    cross_depth: int = 1
    dim: int = 256
    heads: int = 8
    channels: int = 3
    image_size: int = 32
    patch_size: int = 4
    audio_channels: int = 1
    audio_size: int = 64
    audio_patch: int = 8
    num_classes: int = 10
    T: int = 4
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        check_positive(cross_depth=self.cross_depth)
        _ = self.images, self.sounds

    @property
    def images(self) -> SpikformerConfig:
        """Of the subnetwork of images."""
        return self._part(self.image_size, self.channels, self.patch_size)

    @property
    def sounds(self) -> SpikformerConfig:
        """Of the subnetwork of sounds."""
        return self._part(self.audio_size, self.audio_channels, self.audio_patch)

    def _part(self, size: int, channels: int, patch: int) -> SpikformerConfig:
        return SpikformerConfig(
            self.depth, self.dim, self.heads, size, channels, self.num_classes, self.T, patch,
            self.mlp_ratio, token_layers="linear",
        )  # fmt: skip


class CrossBlock(nn.Module):
    """Each modality attends to the other, then goes through an MLP of its own."""

    def __init__(self, config: SMMTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.attn = nn.ModuleList(
            SpikingSelfAttention(dim, config.heads, make_neuron, qkv_bias=True) for _ in range(2)
        )
        self.mlp = nn.ModuleList(SpikingMlp(dim, hidden, make_neuron) for _ in range(2))

    def forward(self, image: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[T, N, C, H, W]`` and ``[T, N, C, H', W']`` to the same shapes."""
        attend_image, attend_sound = (cast(SpikingSelfAttention, a).attend for a in self.attn)
        seen = sew_join(attend_image(image, sound), image, "ADD")
        heard = sew_join(attend_sound(sound, image), sound, "ADD")
        seen, heard = (
            sew_join(mlp(x), x, "ADD") for mlp, x in zip(self.mlp, (seen, heard), strict=True)
        )
        return seen, heard


class SMMT(nn.Module):
    """SMMT, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for those after
            attention products; default Spikformer's.

    >>> import torch
    >>> net = SMMT(SMMTConfig(depth=1, dim=16, heads=2, image_size=16, audio_size=16))
    >>> net(torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SMMTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or spikformer_neuron()
        self.config = config
        self.T = config.T
        parts = config.images, config.sounds
        self.stems = nn.ModuleList(Stem(part, make_neuron) for part in parts)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Block(part, make_neuron) for _ in range(config.depth)))
            for part in parts
        )
        self.cross = nn.ModuleList(
            CrossBlock(config, make_neuron) for _ in range(config.cross_depth)
        )
        self.head = nn.Linear(2 * config.dim, config.num_classes)
        initialise(self, config.images)

    def forward(self, images: Tensor, sounds: Tensor) -> Tensor:
        """Logits of every step; their mean over time is the answer.

        Args:
            images: ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.
            sounds: bands over time, ``[N, audio_channels, H', W']``, repeated over T, or a
                sequence ``[T, N, audio_channels, H', W']`` of as many steps.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: either is not floating point.
            ValueError: wrong rank, channels or size, empty, or another number of steps or samples
                of one than of the other.
        """
        given = zip((images, sounds), (self.config.images, self.config.sounds), strict=True)
        sequences = [
            as_sequence(x, steps=self.T, channels=part.channels, divisor=part.patch_size)
            for x, part in given
        ]
        if sequences[0].shape[:2] != sequences[1].shape[:2]:
            raise ValueError(
                "images and sounds must have the same steps and samples, got "
                f"{list(sequences[0].shape[:2])} and {list(sequences[1].shape[:2])}"
            )
        seen, heard = (
            blocks(stem(x))
            for x, stem, blocks in zip(sequences, self.stems, self.blocks, strict=True)
        )
        for cross in self.cross:
            seen, heard = cross(seen, heard)
        both = torch.cat([seen.mean((-2, -1)), heard.mean((-2, -1))], -1)
        logits: Tensor = self.head(both)
        return logits


PRESETS = {
    # Frames of MNIST-DVS, and spikes of 64 channels of a cochlea (N-TIDIGITS) in 64 bins of time.
    "smmt_mnistdvs_ntidigits": SMMTConfig(
        channels=2, image_size=128, patch_size=16, T=16, depth=1, num_classes=10
    ),
    "smmt_cifar10_av": SMMTConfig(),
    "smmt_urbansound8k_av": SMMTConfig(image_size=64, patch_size=8),
}

FAMILY = Family("smmt", network=SMMT, presets=PRESETS, neuron=spikformer_neuron)
