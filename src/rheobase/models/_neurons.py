"""Neurons that more than one family has from its papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rheobase.models.registry import MakeNeuron
from rheobase.neurons import LIF, PLIF, neuron_factory
from rheobase.surrogate import ATan, PiecewiseQuadratic, Rectangular

__all__ = ["neuron_of_channels", "plif_neuron", "stbp_neuron", "tet_neuron"]


def neuron_of_channels(make_neuron: MakeNeuron, per_channel: bool) -> Callable[[int], nn.Module]:
    """What makes the neuron of a layer of so many channels.

    Args:
        make_neuron: makes each neuron.
        per_channel: tell it the channels, as neurons with parameters or a norm of each one need.
    """
    if per_channel:
        return lambda width: make_neuron(channels=width)
    return lambda width: make_neuron()


def plif_neuron(**kwargs: Any) -> MakeNeuron:
    """PLIF from tau 2, reset detached, arctangent surrogate with alpha 2.

    Source: Fang et al. 2021, arXiv 2007.05785, and its repository.
    """
    return neuron_factory(PLIF, **({"detach_reset": True, "surrogate": ATan(2.0)} | kwargs))


def tet_neuron(**kwargs: Any) -> MakeNeuron:
    """The LIF of TET: decay 0.5, threshold 1, gradient through the reset, triangular surrogate.

    Source: Deng et al. 2022, arXiv 2202.11946, and its repository.
    """
    return _leaky(0.5, {"surrogate": PiecewiseQuadratic(1.0)} | kwargs)


def stbp_neuron(**kwargs: Any) -> MakeNeuron:
    """The LIF of STBP and tdBN: decay 0.25, threshold 0.5, rectangular surrogate of mass 1.

    MS-ResNet has it with ``detach_reset``, LTMD with a learnt threshold.
    Source: Zheng et al. 2021, arXiv 2011.05280, section "Experiment".
    """
    return _leaky(0.25, {"v_threshold": 0.5, "surrogate": Rectangular(1.0)} | kwargs)


def _leaky(decay: float, options: dict[str, Any]) -> MakeNeuron:
    defaults = {"tau": 1.0 / (1.0 - decay), "decay_input": False, "strict": True}
    return neuron_factory(LIF, **(defaults | options))
