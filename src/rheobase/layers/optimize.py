"""A trained network made fast for inference, by what is measured on an example of its input."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rheobase.layers.events import EventConv2d, EventLinear, can_be_event_driven
from rheobase.layers.folding import fold_norms
from rheobase.layers.time import apply_layer
from rheobase.stateful import streaming

__all__ = ["Optimized", "optimize"]

_REPEATS = 7

M = TypeVar("M", bound=nn.Module)


class Optimized(nn.Module):
    """What `optimize` returns: called, streamed, exported and saved as the network it was made of.

    Attributes:
        net: the network as it was made over.
        choices: what was done, and what was measured, one line each.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype, choices: Sequence[str]) -> None:
        super().__init__()
        self.net = net
        self.dtype = dtype
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Any:
        """As the network it was made of; in and out in the input's dtype."""
        y = self.net(x.to(self.dtype))
        return y.to(x.dtype) if isinstance(y, Tensor) else y

    def extra_repr(self) -> str:
        """What was done."""
        return "\n".join(self.choices)


def optimize(
    net: nn.Module,
    example: Tensor,
    *,
    stream: bool = False,
    dtypes: Sequence[torch.dtype] | None = None,
) -> Optimized:
    """Make a network over for inference, for inputs like ``example`` on this machine.

    Norms go into the weights before them (`rheobase.layers.folding`); one that cannot, because
    it differs from step to step or belongs to no one layer, stays and is done in the neuron's pass
    where that is possible. Linear layers and convolutions whose input has few spikes become event
    driven, weights channels last, and the dtype another of ``dtypes``, each where it makes the
    example faster.

    In float64 the spikes are the same, and outputs to rounding; in float32 sums are rounded
    otherwise, and single spikes near the threshold may differ. Half precision, if allowed by
    ``dtypes``, rounds inputs and weights to its 8 or 11 bits; membranes stay float32.

    Args:
        net: a network, left as it is: what is returned shares nothing with it.
        example: an input as it will come: of the batch size, and with the spikes, to be fast for.
        stream: the example ``[T, N, ...]`` will come one step at a time, within
            `rheobase.streaming`.
        dtypes: what may be chosen from; default: the dtype of the example alone.

    Returns:
        the network in evaluation mode, without gradients; it streams and exports as ``net`` does,
        and prints what was done.

    Raises:
        TypeError: the example is not floating point.

    >>> from rheobase.layers import ConvNormNeuron
    >>> from rheobase.neurons import LIF
    >>> net = ConvNormNeuron(3, 8, LIF(), kernel_size=3).double().eval()
    >>> x = torch.rand(4, 1, 3, 8, 8, dtype=torch.float64)
    >>> fast = optimize(net, x)
    >>> torch.equal(fast(x), net(x))
    True
    >>> fast.choices[0]
    '1 of 1 norms folded into the weights before them'
    """
    if not example.is_floating_point():
        raise TypeError(f"the example is {example.dtype}, not floating point; call example.float()")
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    run = _streamed if stream else _called
    with torch.no_grad():
        choices = [fold_norms(fast, example)]
        choices += _event_layers(fast, example, example.shape[0] if stream else 1)
        dtype = example.dtype
        for other in dtypes or ():
            if other != dtype:
                made = Optimized(copy.deepcopy(fast).to(other), other, ())
                before = Optimized(fast, dtype, ())
                chosen, line = _faster(made, before, lambda net: run(net, example))
                choices.append(f"{other}: {line}")
                fast, dtype = chosen.net, chosen.dtype
        if any(isinstance(module, nn.Conv2d) for module in fast.modules()):
            last = copy.deepcopy(fast).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = example.to(dtype)
            fast, line = _faster(last, fast, lambda net: run(net, x))
            choices.append(f"weights channels last: {line}")
    return Optimized(fast, dtype, choices)


def _called(net: nn.Module, x: Tensor) -> None:
    net(x)


def _streamed(net: nn.Module, x: Tensor) -> None:
    with streaming(net):
        for step in torch.split(x, 1):
            net(step)


def _by_steps(steps: Sequence[Tensor], module: nn.Module) -> None:
    for step in steps:
        apply_layer(module, step)  # as `over_time` calls it


def _event_layers(net: nn.Module, example: Tensor, pieces: int) -> list[str]:
    """Replace what is faster event by event; what was found.

    A layer's input is given to it in so many pieces.
    """
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, module in net.named_modules():
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and can_be_event_driven(module)):
            handles.append(module.register_forward_pre_hook(_keep(inputs, name)))
    try:
        net(example)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name, x in inputs.items():
        layer = net.get_submodule(name)
        made = copy.copy(layer)
        made.__class__ = EventLinear if isinstance(layer, nn.Linear) else EventConv2d
        steps = x.chunk(pieces)
        chosen, line = _faster(made, layer, partial(_by_steps, steps))
        if chosen is made and name:
            _replace(net, name, made)
            density = float(x.count_nonzero()) / x.numel()
            found.append(f"{name}: event driven at {density:.1%} active input: {line}")
    return found


def _keep(inputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[name] = arguments[0]

    return hook


def _replace(net: nn.Module, name: str, made: nn.Module) -> None:
    """Put a module in another's place, wherever the network holds that one."""
    old = net.get_submodule(name)
    for owner in net.modules():
        for key, child in list(owner._modules.items()):
            if child is old:
                owner._modules[key] = made


def _faster(made: M, before: M, run: Callable[[M], object]) -> tuple[M, str]:
    """The faster of two, run in turn, and the finding in words."""
    times: dict[M, list[float]] = {made: [], before: []}
    for repeat in range(_REPEATS + 1):
        for module, taken in times.items():
            start = time.perf_counter()
            run(module)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:  # the first warms up
                taken.append(time.perf_counter() - start)
    gain = statistics.median(times[before]) / statistics.median(times[made])
    better = gain > 1.0
    return made if better else before, f"{gain:.2f} times as fast, {'taken' if better else 'left'}"
