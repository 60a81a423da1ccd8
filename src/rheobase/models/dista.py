"""DISTA: Spikformer with attention to past steps and learnt time constants. A reconstruction.

Xu et al. 2023, "DISTA: Denoising Spiking Transformer with Intrinsic Plasticity and Spatiotemporal
Attention", arXiv 2311.09376, has no public code. From the paper: every neuron learns its time
constant; queries of a step attend to keys and values of that step and of earlier ones; attention
below a threshold is noise and becomes zero. Uncertain, and chosen here: the earlier steps are the
last ``window``, each with a learnt weight for every head that starts at 0 (1 for the step itself),
so that it begins as Spikformer; the threshold is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rheobase.layers import ConvNormNeuron, split_heads
from rheobase.models._mixing import MixingSpikformer, like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import SpikformerConfig
from rheobase.neurons import PLIF, neuron_factory
from rheobase.surrogate import Sigmoid

__all__ = ["DISTA", "FAMILY", "PRESETS", "DISTAConfig", "DenoisedAttention"]


@dataclass(frozen=True)
class DISTAConfig(SpikformerConfig):
    """One DISTA: the fields of `SpikformerConfig`, and two more.

    Args:
        window: how many earlier steps a query sees.
        noise: scaled attention below it becomes zero.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    window: int = 1
    noise: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 0 or self.noise < 0.0:
            raise ValueError(f"window and noise must not be negative, got {self}")


def dista_neuron(**kwargs: Any) -> MakeNeuron:
    """Spikformer's neuron with a time constant that is learnt, from tau 2 on."""
    return neuron_factory(PLIF, **({"detach_reset": True, "surrogate": Sigmoid(4.0)} | kwargs))


class DenoisedAttention(nn.Module):
    """Spiking self-attention over this step's tokens and those of the steps before it."""

    # Causal, but keys and values of earlier calls are not kept.
    causal = False

    def __init__(self, config: DISTAConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, bias = config.dim, config.token_layers == "linear"
        self.heads, self.scale, self.noise = config.heads, config.scale, config.noise
        self.q = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.k = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.v = ConvNormNeuron(dim, dim, make_neuron(), bias=bias)
        self.memory = nn.Parameter(torch.zeros(config.window + 1, config.heads, 1, 1))
        nn.init.ones_(self.memory[0])
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k, v = (split_heads(unit(x), self.heads) for unit in (self.q, self.k, self.v))
        y = torch.zeros_like(v)
        for lag, weight in enumerate(self.memory):
            attention = _earlier(k, lag).mT @ q * (self.scale * weight)
            kept = attention * (attention >= self.noise).to(attention.dtype)
            y = y + _earlier(v, lag) @ kept
        spikes: Tensor = self.proj(self.neuron(y.reshape(x.shape)))
        return spikes


def _earlier(x: Tensor, lag: int) -> Tensor:
    """What was ``lag`` steps ago, zero before the first: ``[T, ...]`` to the same shape."""
    steps = x.shape[0]
    return pad(x, (0, 0) * (x.dim() - 1) + (lag, 0))[:steps]


class DISTA(MixingSpikformer):
    """DISTA, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default PLIF.

    >>> net = DISTA(DISTAConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: DISTAConfig, make_neuron: MakeNeuron | None = None) -> None:
        make = make_neuron or dista_neuron()
        super().__init__(config, make, lambda: DenoisedAttention(config, make))


PRESETS: dict[str, DISTAConfig] = {
    "dista_cifar10_4_384": like(DISTAConfig, "spikformer_cifar10_4_384", T=6),
    "dista_cifar100_4_384": like(DISTAConfig, "spikformer_cifar100_4_384", T=6),
    "dista_cifar10dvs_2_256": like(DISTAConfig, "spikformer_cifar10dvs_2_256", T=10),
}

FAMILY = Family("dista", network=DISTA, presets=PRESETS, neuron=dista_neuron)
