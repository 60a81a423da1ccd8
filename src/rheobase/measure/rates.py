"""Firing rates of every neuron layer, and how many neurons stay silent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from rheobase.layers import Recurrent
from rheobase.measure._evaluating import evaluating
from rheobase.neurons import Lapicque, Neuron, SpikeFiringApproximation
from rheobase.stateful import Stateful

__all__ = ["firing_rates", "is_neuron", "spiking_sparsity"]


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is one of those that spikes are counted of (see `firing_rates`)."""
    return isinstance(module, Neuron | Lapicque | Recurrent | SpikeFiringApproximation)


def firing_rates(net: nn.Module, x: Tensor) -> dict[str, float]:
    """Mean spikes per neuron and time step of every neuron module of ``net(x)``.

    These are `Neuron`, `Lapicque`, `Recurrent` and `SpikeFiringApproximation`, whose steps are its
    levels. A negative spike is a spike.

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

    def record(name: str, fired: Tensor, continued: bool) -> None:
        spikes[name] += fired.double().abs().sum().item()
        numel[name] += fired.numel()

    _watch(net, x, record)
    return {name: spikes[name] / numel[name] for name in spikes}


def spiking_sparsity(net: nn.Module, x: Tensor) -> float:
    r"""Share of the network's neurons that stay silent during one inference.

    .. math:: S = 1 - N_\mathrm{active} / N_\mathrm{total}

    A neuron is active in an inference if it fires at any of its time steps; the share is the mean
    over the images of ``x``. Neurons are those of `firing_rates`.

    Args:
        net: a network; runs in evaluation mode.
        x: its input, as many images as the share is to be averaged over.

    Returns:
        in [0, 1]; 1 if nothing fires.

    Raises:
        ValueError: the network has no neurons.

    Source: S2 section 6.2.

    >>> import torch
    >>> from rheobase.neurons import IF
    >>> spiking_sparsity(nn.Sequential(IF()), torch.tensor([[[0.0, 0.1, 0.5, 1.0]]] * 4))
    0.5
    """
    ever: list[Tensor] = []
    place: dict[str, int] = {}

    def record(name: str, fired: Tensor, continued: bool) -> None:
        active = fired.ne(0).any(0)
        if continued and name in place:
            ever[place[name]] |= active
        else:
            place[name] = len(ever)
            ever.append(active)

    _watch(net, x, record)
    total = sum(active.numel() for active in ever)
    if not total:
        raise ValueError("spiking_sparsity needs a network with neurons")
    return 1.0 - sum(int(active.sum()) for active in ever) / total


def _watch(net: nn.Module, x: Tensor, record: Callable[[str, Tensor, bool], None]) -> None:
    """Run the network; ``record(name, spikes [T, N, ...], continued)`` at every neuron's call.

    A call is continued if it takes up the state that the call before left, as pieces of a stream.
    """

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor | tuple[Tensor, Tensor]) -> None:
            streams = isinstance(module, Stateful) and module.carried is not None
            record(name, output[0] if isinstance(output, tuple) else output, streams)

        return keep

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in net.named_modules()
        if is_neuron(module)
    ]
    try:
        with evaluating(net):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
