"""MPBN ResNets: the ResNets of tdBN whose neurons normalise their membrane before they fire.

Guo et al. 2023, "Membrane Potential Batch Normalization for Spiking Neural Networks", arXiv
2308.08359, and its code: plain batch norm behind every convolution, the norm of the membrane in
every neuron. `rheobase.layers.MPBN.fold` makes thresholds of the latter. ResNet-19 is that of the
code: a stem as wide as the first stage, and one linear layer.
"""

from __future__ import annotations

from typing import Any

from rheobase.layers import MPBN
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.tdbn_resnet import (
    IMAGENET,
    LAYOUTS,
    CurrentResNet,
    CurrentResNetConfig,
)
from rheobase.neurons import neuron_factory
from rheobase.surrogate import Dspike

__all__ = ["FAMILY", "PRESETS"]


def mpbn_neuron(**kwargs: Any) -> MakeNeuron:
    """The code's neuron: decay 0.25, fires where the norm of h is above 0.5, Dspike with b = 3."""
    defaults = {"tau": 4.0 / 3.0, "decay_input": False, "v_threshold": 0.5, "strict": True}
    return neuron_factory(MPBN, **(defaults | {"surrogate": Dspike(3.0)} | kwargs))


_RESNET19: dict[str, Any] = LAYOUTS[19] | {"stem_width": 128, "hidden": None}
_MPBN: dict[str, Any] = {"norm": "batch", "per_channel": True, "spiking_output": False}

PRESETS: dict[str, CurrentResNetConfig] = {
    "mpbn_resnet18_cifar10": CurrentResNetConfig(**LAYOUTS[18], **_MPBN, T=2),
    "mpbn_resnet19_cifar10": CurrentResNetConfig(**_RESNET19, **_MPBN, T=2),
    "mpbn_resnet34": CurrentResNetConfig(**LAYOUTS[34], **_MPBN, **IMAGENET, T=4),
}

FAMILY = Family("mpbn_resnet", network=CurrentResNet, presets=PRESETS, neuron=mpbn_neuron)
