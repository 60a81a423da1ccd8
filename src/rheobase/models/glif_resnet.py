"""GLIF ResNets: the ResNets of tdBN with gated neurons and a norm in every shortcut.

Yao et al. 2022, "GLIF: A Unified Gated Leaky Integrate-and-Fire Neuron for Spiking Neural
Networks", arXiv 2210.13768. Every channel has gates of its own, and every step a conductance, so a
network is tied to its T. The hidden linear layer has no neuron.
"""

from __future__ import annotations

from typing import Any

from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.tdbn_resnet import (
    IMAGENET,
    LAYOUTS,
    CurrentResNet,
    CurrentResNetConfig,
)
from rheobase.neurons import GLIF, neuron_factory

__all__ = ["FAMILY", "PRESETS", "GLIFResNetConfig"]


class GLIFResNetConfig(CurrentResNetConfig):
    """A ResNet whose neurons are told the number of its steps."""

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

PRESETS: dict[str, CurrentResNetConfig] = {
    "glif_resnet18_cifar10": GLIFResNetConfig(**(LAYOUTS[18] | _CIFAR), hidden=256),
    "glif_resnet19_cifar10": GLIFResNetConfig(**(LAYOUTS[19] | _CIFAR), stem_width=128),
    "glif_resnet34": GLIFResNetConfig(**(LAYOUTS[34] | _GLIF | IMAGENET), first_stride=2, T=4),
}

FAMILY = Family("glif_resnet", network=CurrentResNet, presets=PRESETS, neuron=glif_neuron)
