"""The neuron as one argument: a class, a factory, or a name, with keyword arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rheobase._errors import unknown_name
from rheobase.neurons.integrate_and_fire import IF, LIF, PLIF

__all__ = ["NEURONS", "neuron_factory"]

NEURONS: dict[str, Callable[..., nn.Module]] = {"if": IF, "lif": LIF, "plif": PLIF}


def neuron_factory(
    neuron: str | Callable[..., nn.Module], **kwargs: Any
) -> Callable[..., nn.Module]:
    """What a model calls to make each of its neurons; later keywords override ``kwargs``.

    Raises:
        ValueError: no neuron has that name; the nearest ones are offered.

    >>> neuron_factory("lif", tau=2.0)(v_threshold=0.5)
    LIF(
      tau=2.0, decay_input=True, v_threshold=0.5, v_reset=0.0
      (surrogate): ATan(alpha=2.0)
    )
    """
    if isinstance(neuron, str):
        if neuron not in NEURONS:
            raise ValueError(unknown_name("neuron", neuron, NEURONS))
        neuron = NEURONS[neuron]
    return partial(neuron, **kwargs)
