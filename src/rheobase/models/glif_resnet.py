"""GLIF ResNets: the ResNets of tdBN with gated neurons and a norm in every shortcut.

Yao et al. 2022, "GLIF: A Unified Gated Leaky Integrate-and-Fire Neuron for Spiking Neural
Networks", arXiv 2210.13768. Every channel has gates of its own, and every step a conductance, so a
network is tied to its T. The hidden linear layer has no neuron.

For ImageNet the released code has each network twice: with blocks that fire at their end, and, as
"MS", with blocks that fire before each convolution, so that currents run through the shortcuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rheobase.layers import over_time
from rheobase.models._norms import Norms
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.tdbn_resnet import (
    IMAGENET,
    LAYOUTS,
    BasicBlock,
    Bottleneck,
    CurrentResNet,
    CurrentResNetConfig,
    MakeNeuronOf,
)
from rheobase.neurons import GLIF, neuron_factory

__all__ = ["FAMILY", "PRESETS", "GLIFResNetConfig", "MembraneBlock"]


class MembraneBlock(BasicBlock):
    """A basic block whose neurons stand before its convolutions; arguments are those of its base.

    The first neuron is of the block's input.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        norm: Norms,
        make_neuron: MakeNeuronOf,
        norm_shortcut: bool = False,
    ) -> None:
        super().__init__(channels, width, stride, norm, make_neuron, norm_shortcut)
        self.sn1 = make_neuron(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, N, channels, H, W] -> [T, N, width, H / stride, W / stride]``."""
        y = over_time(self.sn1(x), self.conv1, self.bn1)
        return self.add(over_time(self.sn2(y), self.conv2, self.bn2), x)


@dataclass(frozen=True)
class GLIFResNetConfig(CurrentResNetConfig):
    """A ResNet whose neurons are told the number of its steps.

    Args:
        membrane_shortcut: shortcuts carry currents, not spikes (the code's "MS" networks).
    """

    membrane_shortcut: bool = False

    @property
    def block(self) -> type[BasicBlock | Bottleneck]:
        """The class of its blocks."""
        return MembraneBlock if self.membrane_shortcut else super().block

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"T": self.T}


def glif_neuron(**kwargs: Any) -> MakeNeuron:
    """GLIF as its code starts it: gates 0.55, 0.65, 0.55, decay 0.25, threshold 0.5."""
    return neuron_factory(GLIF, **({"gates": (0.55, 0.65, 0.55)} | kwargs))


_GLIF: dict[str, Any] = {
    "norm_shortcut": True, "per_channel": True, "spiking_output": False, "bias": False,
}  # fmt: skip
_CIFAR: dict[str, Any] = _GLIF | {"hidden_fires": False}
_IMAGENET: dict[str, Any] = _GLIF | IMAGENET | {"first_stride": 2, "stem_padding": 1}
_MS: dict[str, Any] = _IMAGENET | {"membrane_shortcut": True}

PRESETS: dict[str, CurrentResNetConfig] = {
    "glif_resnet18_cifar10": GLIFResNetConfig(**(LAYOUTS[18] | _CIFAR), hidden=256),
    "glif_resnet19_cifar10": GLIFResNetConfig(**(LAYOUTS[19] | _CIFAR), stem_width=128),
    "glif_resnet34": GLIFResNetConfig(**(LAYOUTS[34] | _IMAGENET), T=4),
    "glif_ms_resnet18": GLIFResNetConfig(**(LAYOUTS[18] | _MS), T=6),
    "glif_ms_resnet34": GLIFResNetConfig(**(LAYOUTS[34] | _MS), T=4),
}

FAMILY = Family("glif_resnet", network=CurrentResNet, presets=PRESETS, neuron=glif_neuron)
