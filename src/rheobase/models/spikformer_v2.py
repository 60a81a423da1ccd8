"""Spikformer V2: Spikformer behind a deeper convolution stem, with masked pre-training.

A reconstruction: Zhou et al. 2024, "Spikformer V2: Join the High Accuracy Club on ImageNet with an
SNN Ticket", arXiv 2401.02020, has no public code. From the paper: the blocks are Spikformer's; the
spiking convolution stem (SCS) halves the image by strided convolutions instead of pooling, and adds
convolutions at every resolution; large networks are pre-trained by masking patches and
reconstructing them. Chosen here: a stage of the stem is a 2x2 convolution of stride 2, then two
3x3 convolutions around four times the width, joined by SEW-ADD, without biases. It gives both
published parameter counts to the last digit (8-384: 29.11 M, 8-512: 51.55 M) and the 172 M of
16-768. Uncertain beyond that: all of the pre-training but its idea, see `MaskedAutoencoder`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import ConvNormNeuron, sew_join
from rheobase.models._mixing import like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import Block, Spikformer, SpikformerConfig, spikformer_neuron

__all__ = [
    "FAMILY",
    "PRESETS",
    "MaskedAutoencoder",
    "SpikformerV2",
    "SpikformerV2Config",
    "random_mask",
]


@dataclass(frozen=True)
class SpikformerV2Config(SpikformerConfig):
    """One Spikformer V2: the fields of `SpikformerConfig`, of which ``cml`` is not used.

    Args:
        expansion: width between the two convolutions of a stage over the width of the stage.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    expansion: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expansion < 1:
            raise ValueError(f"expansion must be at least 1, got {self.expansion}")
        if self.cml:
            raise ValueError("the stem of Spikformer V2 does not pool: leave out cml=True")


class Stage(nn.Module):
    """A convolution that may halve the image, then two more beside a shortcut."""

    def __init__(
        self, channels: int, width: int, halves: bool, expansion: int, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.down = ConvNormNeuron(channels, width, make_neuron(), kernel_size=3)
        if halves:
            self.down.conv = nn.Conv2d(channels, width, 2, stride=2, bias=False)
        self.expand = ConvNormNeuron(width, expansion * width, make_neuron(), kernel_size=3)
        self.shrink = ConvNormNeuron(expansion * width, width, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[T, N, channels, H, W]`` to the integers 0 to 2, ``[T, N, width, H', W']``.

        ``visible`` ``[N, 1, h, w]`` is 0 for patches whose pixels stay zero in every layer.
        """
        x = _hide(self.down(x), visible)
        y = _hide(self.expand(x), visible)
        return sew_join(_hide(self.shrink(y), visible), x, "ADD")


def _hide(x: Tensor, visible: Tensor | None) -> Tensor:
    return x if visible is None else x * F.interpolate(visible, x.shape[-2:])


class Stem(nn.Module):
    """The spiking convolution stem: four stages, the last ``log2(patch_size)`` of which halve."""

    def __init__(self, config: SpikformerV2Config, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim = config.dim
        widths = pairwise([config.channels, dim // 8, dim // 4, dim // 2, dim])
        first = 4 - int(math.log2(config.patch_size))
        self.stages = nn.ModuleList(
            Stage(a, b, stage >= first, config.expansion, make_neuron)
            for stage, (a, b) in enumerate(widths)
        )

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``[T, N, channels, H, W]`` to ``[T, N, dim, H / patch, W / patch]``, of 0, 1 and 2."""
        for stage in self.stages:
            x = stage(x, visible)
        return x


class SpikformerV2(Spikformer):
    """Spikformer V2, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default Spikformer's.

    >>> net = SpikformerV2(SpikformerV2Config(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SpikformerV2Config, make_neuron: MakeNeuron | None = None) -> None:
        make_neuron = make_neuron or spikformer_neuron()
        super().__init__(config, make_neuron)
        self.stem = Stem(config, make_neuron)

    def visible_tokens(self, x: Tensor, visible: Tensor) -> Tensor:
        """The encoder's tokens of the visible patches only, ``[T, N, dim, tokens, 1]``.

        Args:
            x: images or a sequence, as `forward` takes them.
            visible: ``[N, 1, h, w]`` of 0 and 1, as many 1 in each sample (see `random_mask`).
        """
        tokens: Tensor = self.stem(_hide(self.checked(x), visible), visible).flatten(3)
        seen = visible.flatten(1).bool().expand(tokens.shape[0], -1, -1)
        tokens = tokens.transpose(2, 3)[seen].view(*tokens.shape[:2], -1, tokens.shape[2])
        tokens = tokens.transpose(2, 3).unsqueeze(-1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def random_mask(
    samples: int, side: int, ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """Which patches are visible, ``[samples, 1, side, side]``: 1 for as many in every sample.

    Raises:
        ValueError: ``ratio`` masks every patch or none.

    >>> random_mask(2, 4, 0.75).sum((1, 2, 3))
    tensor([4., 4.])
    """
    patches = side * side
    kept = round(patches * (1.0 - ratio))
    if not 0 < kept < patches:
        raise ValueError(f"ratio={ratio} of {patches} patches leaves {kept} visible")
    rank = torch.rand(samples, patches, generator=generator).argsort(1).argsort(1)
    return (rank < kept).float().view(samples, 1, side, side)


class MaskedAutoencoder(nn.Module):
    """Masked image modelling around a `SpikformerV2`, whose weights it trains.

    As in masked autoencoders (He et al. 2022, arXiv 2111.06377), blocks see visible patches only,
    a light decoder sees all, with a learnt token in the place of those masked, and the loss is the
    squared error of the masked patches' pixels, normalised per patch. Where the stem convolves,
    masked patches stay zero in every layer (Tian et al. 2023, arXiv 2301.03580). Which of this the
    paper did is uncertain: its abstract says masking and reconstruction.

    Args:
        encoder: the network to pre-train; its head is not used.
        ratio: of patches that are masked.
        decoder_depth: blocks of the decoder.
        make_neuron: of the decoder; default Spikformer's.

    >>> net = SpikformerV2(SpikformerV2Config(depth=1, dim=16, heads=2))
    >>> loss = MaskedAutoencoder(net)(torch.rand(2, 3, 32, 32))
    >>> loss.backward()
    """

    def __init__(
        self,
        encoder: SpikformerV2,
        ratio: float = 0.75,
        decoder_depth: int = 1,
        make_neuron: MakeNeuron | None = None,
    ) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.ratio = ratio
        self.side = config.image_size // config.patch_size
        self.token = nn.Parameter(torch.zeros(config.dim, 1))
        self.position = nn.Parameter(torch.empty(config.dim, self.side**2))
        nn.init.trunc_normal_(self.position, std=0.5)
        make_neuron = make_neuron or spikformer_neuron()
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(decoder_depth))
        self.pixels = nn.Linear(config.dim, config.channels * config.patch_size**2)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss of images ``[N, C, H, W]`` under random masks.

        Raises:
            ValueError: images that are not of the encoder's ``image_size``, or what its own
                `forward` refuses.
        """
        size = self.encoder.config.image_size
        if images.shape[-2:] != (size, size):
            raise ValueError(
                f"pre-training wants images of side {size}, got {list(images.shape)}; build the "
                "network with another image_size"
            )
        visible = random_mask(len(images), self.side, self.ratio, generator).to(images)
        hidden = visible.flatten(1) == 0
        error = (self.reconstruct(images, visible) - self.patches(images)).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()

    def reconstruct(self, images: Tensor, visible: Tensor) -> Tensor:
        """Pixels of every patch, normalised per patch, ``[N, patches, channels * patch ** 2]``."""
        seen = self.encoder.visible_tokens(images, visible).squeeze(-1).transpose(2, 3)
        steps, samples = seen.shape[:2]
        where = visible.flatten(1).bool().expand(steps, -1, -1).unsqueeze(-1)
        tokens = self.token.T.expand(steps, samples, self.side**2, -1).to(seen.dtype)
        x = tokens.masked_scatter(where, seen).transpose(2, 3) + self.position
        x = x.unflatten(3, (self.side, self.side))  # type: ignore[no-untyped-call]
        for block in self.blocks:
            x = block(x)
        pixels: Tensor = self.pixels(x.flatten(3).transpose(2, 3).mean(0))
        return pixels

    def patches(self, images: Tensor) -> Tensor:
        """The pixels of every patch with mean 0 and variance 1."""
        size = self.encoder.config.patch_size
        pixels = F.unfold(images, size, stride=size).mT
        deviation = (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
        return (pixels - pixels.mean(-1, keepdim=True)) / deviation


PRESETS: dict[str, SpikformerV2Config] = {
    "spikformer_v2_8_384": like(SpikformerV2Config, "spikformer_8_384"),
    "spikformer_v2_8_512": like(SpikformerV2Config, "spikformer_8_512"),
    # Pre-trained and finetuned at one step in the paper.
    "spikformer_v2_16_768": replace(like(SpikformerV2Config, "spikformer_8_768"), depth=16, T=1),
    # Sizes of Spikformer's; the paper's were not at hand.
    **{
        f"spikformer_v2_cifar{n}_4_384": like(SpikformerV2Config, f"spikformer_cifar{n}_4_384")
        for n in (10, 100)
    },
}

FAMILY = Family("spikformer_v2", network=SpikformerV2, presets=PRESETS, neuron=spikformer_neuron)
