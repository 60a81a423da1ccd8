"""Spikformer-LT: Spikformer with a fixed linear transform in attention's place. A reconstruction.

Wang et al. 2023, "Attention-free Spikformer: Mixing Spike Sequences with Simple Linear Transforms",
arXiv 2308.02557; its journal version is "Fourier or Wavelet bases as counterpart self-attention in
spikformer", Frontiers in Neuroscience 18, 2025 (arXiv 2403.18228). There is no public code, and its
equations were not at hand. From the abstracts: an unparameterised Fourier or wavelet transform
takes the place of attention, so that blocks alternate between time and frequency, nothing is learnt
there and the time is O(n log n). Uncertain, and chosen here: the Fourier transform is over tokens
and channels and its real part is kept (as in FNet); the wavelet is Haar's, one level, over the same
axes; a batch norm and a neuron follow, without a projection. The journal version's combinations of
several bases are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.models._inputs import check_choice
from rheobase.models._mixing import MixingSpikformer, like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import SpikformerConfig, spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "SpikformerLT", "SpikformerLTConfig", "TransformMixer"]

Transform = Literal["fourier", "wavelet"]


@dataclass(frozen=True)
class SpikformerLTConfig(SpikformerConfig):
    """One Spikformer-LT: the fields of `SpikformerConfig`, of which attention's are not used.

    Args:
        transform: "fourier" or "wavelet".
        over: "tokens", or "both" tokens and channels.

    Raises:
        ValueError: sizes that do not divide each other; an odd number of tokens for wavelets.
    """

    transform: Transform = "fourier"
    over: Literal["tokens", "both"] = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("transform", self.transform, ("fourier", "wavelet"))
        check_choice("over", self.over, ("tokens", "both"))
        side = self.image_size // self.patch_size
        if self.transform == "wavelet" and side % 2:
            raise ValueError(
                f"the wavelet transform pairs tokens: image_size={self.image_size} over "
                f"patch_size={self.patch_size} must be even, got {side}"
            )


def fourier(x: Tensor, over: str) -> Tensor:
    """The real part of the orthonormal Fourier transform of ``[..., C, tokens]``."""
    axes = (-1,) if over == "tokens" else (-2, -1)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    spectrum: Tensor = torch.fft.fftn(wide, dim=axes, norm="ortho")
    return spectrum.real.to(x.dtype)


def wavelet(x: Tensor, over: str) -> Tensor:
    """One level of the orthonormal Haar transform of ``[..., C, tokens]``: means, differences."""
    y = _pairs(x)
    return y if over == "tokens" else _pairs(y.mT).mT


def _pairs(x: Tensor) -> Tensor:
    if x.shape[-1] % 2:
        raise ValueError(
            f"the wavelet transform pairs tokens, or channels, and got {x.shape[-1]}; resize the "
            "images so that there is an even number"
        )
    even, odd = x[..., ::2], x[..., 1::2]
    scale: float = 0.5**0.5
    return torch.cat([even + odd, even - odd], dim=-1) * scale


class TransformMixer(nn.Module):
    """The transform of every step's spikes, batch norm, and a neuron."""

    def __init__(self, config: SpikformerLTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.transform = fourier if config.transform == "fourier" else wavelet
        self.over = config.over
        self.norm = nn.BatchNorm2d(config.dim)
        self.neuron = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        y = self.transform(x.flatten(3), self.over).reshape(x.shape)
        return over_time(y, self.norm, self.neuron)


class SpikformerLT(MixingSpikformer):
    """Spikformer-LT, a reconstruction.

    Args:
        config: sizes and transform.
        make_neuron: makes each neuron; default Spikformer's.

    >>> net = SpikformerLT(SpikformerLTConfig(depth=1, dim=16, heads=1, transform="wavelet"))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: SpikformerLTConfig, make_neuron: MakeNeuron | None = None) -> None:
        make = make_neuron or spikformer_neuron()
        super().__init__(config, make, lambda: TransformMixer(config, make))


PRESETS: dict[str, SpikformerLTConfig] = {
    host.replace("spikformer", f"spikformer_lt_{transform}"): like(
        SpikformerLTConfig, host, transform=transform
    )
    for host in (
        "spikformer_cifar10_4_384",
        "spikformer_cifar100_4_384",
        "spikformer_cifar10dvs_2_256",
        "spikformer_dvs128_2_256",
    )
    for transform in ("fourier", "wavelet")
}

FAMILY = Family("spikformer_lt", network=SpikformerLT, presets=PRESETS, neuron=spikformer_neuron)
