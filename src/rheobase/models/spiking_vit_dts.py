"""Spiking ViT with dynamic time steps: Spikformer whose layers learn when to be silent.

A reconstruction: Datta et al. 2023, "Spiking Neural Networks with Dynamic Time Steps for Vision
Transformers", arXiv 2311.16456 (also ICASSP 2025, "Dynamic SpikFormer"), has no public code. From
its abstract: a score for each time step is trained; a scalar binary mask made of it filters the
spikes of every neuron of a layer; so modules get different numbers of steps, and all but the
embedding accumulates. Uncertain, and chosen here: every neuron layer has a mask, 1 where the
sigmoid of its score is above 1/2, with the sigmoid's gradient; scores start at 1, so that every
step is on; the loss adds ``loss.steps_weight`` times `SpikingViTDTS.time_penalty`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rheobase.models._mixing import like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import Spikformer, SpikformerConfig, spikformer_neuron
from rheobase.stateful import Stateful

__all__ = ["FAMILY", "PRESETS", "GatedNeuron", "SpikingViTDTS", "SpikingViTDTSConfig"]


@dataclass(frozen=True)
class SpikingViTDTSConfig(SpikformerConfig):
    """One Spiking ViT with dynamic time steps: the fields of `SpikformerConfig`."""


class GatedNeuron(Stateful):
    """A neuron layer that is silent at steps whose score is not positive.

    Args:
        neuron: the neuron.
        steps: the most steps that it can be called with.
    """

    # Causal, but it counts steps from the start of the call.
    causal = False

    def __init__(self, neuron: nn.Module, steps: int) -> None:
        super().__init__()
        self.neuron = neuron
        self.scores = nn.Parameter(torch.ones(steps))

    def mask(self) -> Tensor:
        """1 for each step that is on, 0 for the others, ``[steps]``; a sigmoid's gradient."""
        soft = self.scores.sigmoid()
        return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``[t, N, ...]`` to spikes of the same shape.

        Raises:
            ValueError: more steps than scores.
        """
        steps = x.shape[0]
        if steps > len(self.scores):
            raise ValueError(
                f"the layer has scores for {len(self.scores)} steps, got {steps}; build the "
                f"network with T={steps}"
            )
        spikes: Tensor = self.neuron(x)
        return spikes * self.mask()[:steps].view(-1, *[1] * (x.dim() - 1)).to(x.dtype)


class SpikingViTDTS(Spikformer):
    """Spikformer with gated neurons, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron that is gated; default Spikformer's.

    >>> net = SpikingViTDTS(SpikingViTDTSConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape, net.mean_steps()
    (torch.Size([4, 2, 10]), 4.0)
    """

    def __init__(self, config: SpikingViTDTSConfig, make_neuron: MakeNeuron | None = None) -> None:
        make = make_neuron or spikformer_neuron()
        super().__init__(config, lambda **options: GatedNeuron(make(**options), config.T))

    def gates(self) -> dict[str, GatedNeuron]:
        """The gated layers by name."""
        return {n: m for n, m in self.named_modules() if isinstance(m, GatedNeuron)}

    def mean_steps(self) -> float:
        """How many steps a layer is on, on average over the layers: the paper's time steps."""
        return float(self.time_penalty().detach() * self.T)

    def time_penalty(self) -> Tensor:
        """The fraction of steps that are on, over layers and steps: a scalar with gradient."""
        return torch.cat([gate.mask() for gate in self.gates().values()]).mean()


PRESETS: dict[str, SpikingViTDTSConfig] = {
    "spiking_vit_dts_8_512": like(SpikingViTDTSConfig, "spikformer_8_512"),
    "spiking_vit_dts_cifar10_4_384": like(SpikingViTDTSConfig, "spikformer_cifar10_4_384", T=6),
    "spiking_vit_dts_cifar100_4_384": like(SpikingViTDTSConfig, "spikformer_cifar100_4_384", T=6),
}

FAMILY = Family("spiking_vit_dts", network=SpikingViTDTS, presets=PRESETS, neuron=spikformer_neuron)
