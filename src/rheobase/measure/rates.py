"""Firing rates of every neuron layer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import Tensor, nn

from rheobase.layers import Recurrent
from rheobase.measure._evaluating import evaluating
from rheobase.neurons import Neuron, SpikeFiringApproximation

__all__ = ["firing_rates"]


def firing_rates(net: nn.Module, x: Tensor) -> dict[str, float]:
    """Mean spikes per neuron and time step of every neuron module of ``net(x)``.

    These are `Neuron`, `Recurrent` and `SpikeFiringApproximation`, whose steps are its levels. A
    negative spike is a spike.

    Args:
        net: a network; runs in evaluation mode.
        x: its input, as many images as the rates are to be averaged over.

    Returns:
        module name to rate, in order of execution; in [0, 1] for binary neurons.

    >>> import torch
    >>> from rheobase.neurons import IF
    >>> firing_rates(nn.Sequential(IF()), torch.full((4, 1, 3), 0.5))
    {'0': 0.5}
    """
    spikes: dict[str, float] = defaultdict(float)
    numel: dict[str, int] = defaultdict(int)

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor | tuple[Tensor, Tensor]) -> None:
            fired = output[0] if isinstance(output, tuple) else output
            spikes[name] += fired.double().abs().sum().item()
            numel[name] += fired.numel()

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in net.named_modules()
        if isinstance(module, Neuron | Recurrent | SpikeFiringApproximation)
    ]
    try:
        with evaluating(net):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: spikes[name] / numel[name] for name in spikes}
