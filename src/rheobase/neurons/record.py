"""The membranes of a network, as it computes: what membrane losses look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from rheobase.neurons.base import Neuron

__all__ = ["Membrane", "record_membranes"]


@dataclass(frozen=True)
class Membrane:
    """One call of one neuron layer.

    Attributes:
        name: the neuron's name in the network.
        h: charged membranes before firing, ``[T, N, ...]``, with gradient.
        spikes: what it fired, ``[T, N, ...]``.
        threshold: its threshold, which broadcasts to a step or to all of ``h``.
    """

    name: str
    h: Tensor
    spikes: Tensor
    threshold: float | Tensor


@contextmanager
def record_membranes(net: nn.Module) -> Iterator[list[Membrane]]:
    """Within the block, list the membranes of every neuron of ``net``, in order of execution.

    They carry gradients, so a loss may be made of them. They are kept whole, T steps of each
    neuron, which costs about as much memory again as the network's own activations.

    >>> import torch
    >>> from rheobase.neurons import IF
    >>> net = nn.Sequential(IF(), IF())
    >>> with record_membranes(net) as membranes:
    ...     spikes = net(torch.full((2, 1, 3), 0.75))
    >>> [(m.name, m.h[:, 0, 0].tolist()) for m in membranes]
    [('0', [0.75, 1.5]), ('1', [0.0, 1.0])]
    """
    found: list[Membrane] = []
    neurons = {name: m for name, m in net.named_modules() if isinstance(m, Neuron)}
    for name, neuron in neurons.items():
        # An attribute of this instance, which hides the method until it is deleted.
        neuron.forward = partial(_tapped, name, neuron, found)  # type: ignore[assignment]
    try:
        yield found
    finally:
        for neuron in neurons.values():
            del neuron.forward


def _tapped(name: str, neuron: Neuron, found: list[Membrane], x: Tensor) -> Tensor:
    spikes, h = type(neuron).forward(neuron, x, tap="h")
    values: dict[str, Any] = neuron.coefficients(x)
    found.append(Membrane(name, h, spikes, values["threshold"]))
    return spikes
