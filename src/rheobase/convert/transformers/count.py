"""How many spikes a converted network sends for each value that it codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.spiking import Spiking
from rheobase.convert.transformers.neurons import BurstSpiking, Coded
from rheobase.neurons import MultiThreshold

__all__ = ["SpikeCount", "count_spikes"]


@dataclass
class SpikeCount:
    """Spikes of one site, and the values that they code.

    Attributes:
        spikes: sent in all steps together.
        values: activations of the ANN, each coded by one train.
    """

    spikes: float = 0.0
    values: float = 0.0

    @property
    def per_value(self) -> float:
        """Spikes for each value."""
        return self.spikes / max(self.values, 1.0)


@torch.no_grad()
def count_spikes(net: ConvertedNetwork, x: Tensor, steps: int | None = None) -> SpikeCount:
    """The spikes of all sites of a network together, in one run on ``[N, ...]``.

    A multi-threshold neuron sends one spike a step at most, of the size of its threshold; a burst
    counts each of its spikes; a code of few spikes counts its set digits.

    >>> from rheobase.convert import convert
    >>> ann = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    >>> snn = convert(ann, torch.rand(8, 3), recipe="integer_code", T=1)
    >>> count_spikes(snn, torch.rand(8, 3)).values
    32.0
    """
    total = SpikeCount()
    count = net.T if steps is None else steps
    handles = [
        module.register_forward_hook(partial(_add, total, counter, count))
        for module in net.modules()
        if (counter := _counter(module)) is not None
    ]
    try:
        net(x, steps)
    finally:
        for handle in handles:
            handle.remove()
    return total


Counter = Callable[[Tensor, Tensor], Tensor]


def _add(
    total: SpikeCount, counter: Counter, steps: int, _: nn.Module, args: Any, out: Tensor
) -> None:
    total.spikes += float(counter(args[0], out).sum())
    total.values += out.numel() / steps


def _counter(module: nn.Module) -> Counter | None:
    """What counts the spikes of a module from its input and output."""
    if isinstance(module, Coded):
        spike_count: Any = module.code.spike_count
        return lambda x, out: spike_count(x)
    if not isinstance(module, Spiking):
        return None
    neuron = module.neuron
    if isinstance(neuron, MultiThreshold):
        return lambda x, out: out.ne(0.0)
    if isinstance(module, BurstSpiking):
        return lambda x, out: module.spike_count(out)
    return lambda x, out: (out / module.size).abs().round()
