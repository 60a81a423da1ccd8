"""MAST: Spikformer whose stem attends to time steps, channels and pixels. A reconstruction.

Li and Liu 2023, "Multi-dimensional Attention Spiking Transformer for Event-based Image
Classification", CISCE, doi 10.1109/CISCE58541.2023.10142563, has no public code, and only its
abstract was at hand: attention mechanisms integrated with spiking networks capture spatio-temporal
features of event-based image sequences; evaluated on CIFAR, DVS128 Gesture and CIFAR10-DVS. All of
the rest is chosen here: a Spikformer in whose stem the current of every neuron is first weighted by
multi-dimensional attention (MA-SNN, Yao et al. 2023, arXiv 2209.13929), doubled for every
dimension: scores begin at 1/2, and without that no neuron ever reaches its threshold. No published
number holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron, MultiDimensionalAttention
from rheobase.models._mixing import like
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import Spikformer, SpikformerConfig, Stem, spikformer_neuron
from rheobase.stateful import Stateful

__all__ = ["FAMILY", "MAST", "PRESETS", "AttendingNeuron", "MASTConfig"]


@dataclass(frozen=True)
class MASTConfig(SpikformerConfig):
    """One MAST: the fields of `SpikformerConfig`, and three more.

    Args:
        attention: the dimensions attended to: "TCSA" (time, channels, space) or fewer of them, as
            in `MultiDimensionalAttention`.
        t_reduction: T over the hidden width of attention to time.
        c_reduction: channels over the hidden width of attention to channels.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    attention: str = "TCSA"
    t_reduction: int = 2
    c_reduction: int = 8


class AttendingNeuron(Stateful):
    """A neuron whose current is weighted by attention first.

    Args:
        attention: ``[T, N, C, H, W]`` to the same shape.
        neuron: the neuron.
        gain: times what attention gives.
    """

    causal = False

    def __init__(self, attention: nn.Module, neuron: nn.Module, gain: float) -> None:
        super().__init__()
        self.attention = attention
        self.neuron = neuron
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Current ``[T, N, C, H, W]`` to spikes of the same shape."""
        spikes: Tensor = self.neuron(self.gain * self.attention(x))
        return spikes


class MAST(Spikformer):
    """MAST, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold=0.5`` for the one after
            the attention product; default Spikformer's.

    >>> import torch
    >>> net = MAST(MASTConfig(depth=1, dim=64, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: MASTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, make_neuron or spikformer_neuron())
        assert isinstance(self.stem, Stem)
        for stage in self.stem.stages:
            assert isinstance(stage, ConvNormNeuron)
            stage.neuron = AttendingNeuron(
                MultiDimensionalAttention(
                    config.attention,
                    steps=config.T,
                    channels=stage.norm.num_features,
                    t_ratio=config.t_reduction,
                    c_ratio=config.c_reduction,
                ),
                stage.neuron,
                gain=2.0 ** sum(config.attention.count(axis) for axis in "TCS"),
            )


PRESETS: dict[str, MASTConfig] = {
    "mast_cifar10_4_384": like(MASTConfig, "spikformer_cifar10_4_384"),
    "mast_cifar100_4_384": like(MASTConfig, "spikformer_cifar100_4_384"),
    "mast_cifar10dvs_2_256": like(MASTConfig, "spikformer_cifar10dvs_2_256"),
    "mast_dvs128_2_256": like(MASTConfig, "spikformer_dvs128_2_256"),
}

FAMILY = Family("mast", network=MAST, presets=PRESETS, neuron=spikformer_neuron)
