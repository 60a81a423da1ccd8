"""TET ResNets: the ResNets of tdBN with plain batch norm, TET's neuron and an output that is none.

Deng et al. 2022, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting",
arXiv 2202.11946. Its released code calls its norm tdBN, but it is plain batch norm over steps and
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rheobase.models._neurons import tet_neuron
from rheobase.models.registry import Family, Official
from rheobase.models.tdbn_resnet import (
    IMAGENET,
    LAYOUTS,
    CurrentResNet,
    CurrentResNetConfig,
    read_config,
    rename,
)

__all__ = ["FAMILY", "PRESETS"]

_TET: dict[str, Any] = {"norm": "batch", "spiking_output": False}

PRESETS: dict[str, CurrentResNetConfig] = {
    **{f"tet_resnet{n}_cifar10": CurrentResNetConfig(**LAYOUTS[n], **_TET) for n in LAYOUTS},
    **{
        f"tet_resnet{n}": CurrentResNetConfig(**LAYOUTS[n], **_TET, **IMAGENET)
        for n in (18, 34, 50)
    },
}


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> CurrentResNetConfig:
    return read_config(weights, kwargs, **_TET)


FAMILY = Family(
    "tet_resnet",
    network=CurrentResNet,
    presets=PRESETS,
    neuron=tet_neuron,
    official={"tet_resnet": Official(_config, rename)},
)
