"""DISTA: Spikformer with memory of past steps and learnt time constants. A reconstruction.

Xu et al. 2023, "DISTA: Denoising Spiking Transformer with Intrinsic Plasticity and Spatiotemporal
Attention", arXiv 2311.09376, has no public code, and its equations were not at hand. From its
abstract: attention of neurons (every neuron learns its time constant, beside the weights),
attention of the network with explicit memory, and a denoising that is not linear, of attention
maps. From its reviews (OpenReview mjDROBU93g): time constants as in PLIF; a window of time steps
that adds parameters, at a cost of O(T N D^2); attention below a threshold becomes zero; 1,000
epochs. From the abstract and a public review of its successor DS2TA (arXiv 2409.15375), which
attenuates one set of weights in time instead of having more: memory is in what makes queries, keys
and values.
Uncertain, and chosen here: queries, keys and values of a step take the spikes of that step and of
the ``window`` steps before it, each by weights of its own; the map is Spikformer's, of one step;
``window`` is 1, the threshold a constant.
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

__all__ = ["DISTA", "FAMILY", "PRESETS", "DISTAConfig", "DenoisedAttention", "Remembering"]


@dataclass(frozen=True)
class DISTAConfig(SpikformerConfig):
    """One DISTA: the fields of `SpikformerConfig`, and two more.

    Args:
        window: how many earlier steps queries, keys and values see.
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


class Remembering(nn.Module):
    """``neuron(norm(sum_k W_k x_{t-k}))`` over this step and the ``window`` steps before it."""

    # Causal, but spikes of earlier calls are not kept.
    causal = False

    def __init__(self, config: DISTAConfig, neuron: nn.Module) -> None:
        super().__init__()
        bias = config.token_layers == "linear"
        self.window = config.window
        self.unit = ConvNormNeuron((config.window + 1) * config.dim, config.dim, neuron, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        steps = torch.cat([_earlier(x, lag) for lag in range(self.window + 1)], 2)
        spikes: Tensor = self.unit(steps)
        return spikes


class DenoisedAttention(nn.Module):
    """Spiking self-attention with memory, whose maps are denoised."""

    def __init__(self, config: DISTAConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.heads, self.scale, self.noise = config.heads, config.scale, config.noise
        self.q = Remembering(config, make_neuron())
        self.k = Remembering(config, make_neuron())
        self.v = Remembering(config, make_neuron())
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(config.dim, config.dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k, v = (split_heads(unit(x), self.heads) for unit in (self.q, self.k, self.v))
        attention = k.mT @ q * self.scale
        kept = attention * (attention >= self.noise).to(attention.dtype)
        spikes: Tensor = self.proj(self.neuron((v @ kept).reshape(x.shape)))
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
