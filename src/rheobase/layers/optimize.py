"""A trained network made fast for inference, by what is measured on an example of its input."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rheobase.layers.events import EventConv2d, EventLinear, can_be_event_driven
from rheobase.layers.folding import fold_norms
from rheobase.layers.int8 import Int8Conv2d, Int8Linear, spike_pool
from rheobase.layers.kept import keep
from rheobase.layers.lookup import LookupConv2d, LookupLinear
from rheobase.layers.spike_bytes import send_bytes
from rheobase.layers.time import apply_layer
from rheobase.neurons import Neuron
from rheobase.ops.eager import watched
from rheobase.ops.int8 import grid_step, to_bytes
from rheobase.stateful import streaming

__all__ = ["Optimized", "optimize"]

_REPEATS = 7
_ENOUGH = 0.3  # seconds: what takes so long in one repeat is known well enough by it

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class _MadeOver(Protocol):
    """A network that knows more than this module can see: converted ones."""

    def make_over(self) -> str: ...


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
        """As the network it was made of; in and out (if floating point) in the input's dtype."""
        y = self.net(x.to(self.dtype))
        if self.dtype == x.dtype:
            return y
        return pytree.tree_map(partial(_to, dtype=x.dtype), y)

    def _apply(self, *args: Any, **options: Any) -> Optimized:
        """What `nn.Module.to` and its like come down to: the dtype moves with the weights."""
        super()._apply(*args, **options)  # type: ignore[no-untyped-call]
        self.dtype = args[0](torch.empty(0, dtype=self.dtype)).dtype
        return self

    def extra_repr(self) -> str:
        """What was done."""
        return "\n".join(self.choices)


def _to(y: Any, dtype: torch.dtype) -> Any:
    return y.to(dtype) if isinstance(y, Tensor) and y.is_floating_point() else y


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
    where that is possible. Linear layers and convolutions whose input is spikes become event driven
    (`EventConv2d`) or look up the sums of four weights (`LookupConv2d`), weights channels last, and
    the dtype another of ``dtypes``, each where it makes the example faster.

    In float64 the spikes are the same, and outputs to rounding; in float32 sums are rounded
    otherwise, and single spikes near the threshold may differ. Half precision, if allowed by
    ``dtypes``, rounds inputs and weights to its 8 or 11 bits; membranes stay float32. `torch.int8`
    rounds the weights of layers whose inputs are spikes, counts or averages of them to 8 bits
    (`rheobase.layers.Int8Conv2d`), and lets spikes travel as bytes; sums stay exact, and so do all
    other layers. Then no gradient flows to the input. In a converted network (`rheobase.convert`)
    the size of spikes goes into the weights that read them.

    Args:
        net: a network, left as it is: what is returned shares nothing with it.
        example: an input as it will come: of the batch size, and with the spikes, to be fast for.
        stream: the example ``[T, N, ...]`` will come one step at a time, within
            `rheobase.streaming`.
        dtypes: what may be chosen from, also `torch.int8`; default: the dtype of the example alone.

    Returns:
        the network in evaluation mode, without gradients; it streams and exports as ``net`` does,
        and prints what was done.

    Raises:
        TypeError: the example is not floating point, or not float32 where int8 is allowed.

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
    with torch.inference_mode(False):  # whose tensors do not tell when they have changed
        fast = copy.deepcopy(net).eval().requires_grad_(False)
    if torch.int8 in (dtypes or ()) and example.dtype != torch.float32:
        raise TypeError(f"8-bit weights are for float32, the example is {example.dtype}")
    run = _streamed if stream else _called
    pieces = example.shape[0] if stream else 1
    with torch.no_grad():
        choices = [fold_norms(fast, example)]
        choices += [m.make_over() for m in fast.modules() if isinstance(m, _MadeOver)]
        choices += _spike_layers(fast, example, pieces)
        for module in fast.modules():
            if stream and isinstance(module, Neuron):
                module.settle()
            elif stream and isinstance(module, nn.Conv2d):
                keep(module)
        best = base = Optimized(fast, example.dtype, ())
        for other in dtypes or ():
            if other != base.dtype:
                made = _in_dtype(base, other, example, pieces)
                best, line = _faster(made, best, lambda net: run(net, example))
                choices += [*made.choices, f"{other}: {line}"]
        fast, dtype = best.net, best.dtype
        if any(isinstance(module, nn.Conv2d) for module in fast.modules()):
            last = _channels_last(copy.deepcopy(fast))
            x = example.to(dtype)
            fast, line = _faster(last, fast, lambda net: run(net, x))
            choices.append(f"weights channels last: {line}")
    return Optimized(fast, dtype, choices)


def _channels_last(net: nn.Module) -> nn.Module:
    """The same, with weights of convolutions in that order (`nn.Module.to` fails on others)."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return net


def _called(net: nn.Module, x: Tensor) -> None:
    net(x)


def _streamed(net: nn.Module, x: Tensor) -> None:
    with streaming(net):
        for step in torch.split(x, 1):
            net(step)


def _by_steps(steps: Sequence[Tensor], module: nn.Module) -> None:
    for step in steps:
        apply_layer(module, step)  # as `over_time` calls it


def _in_dtype(base: Optimized, dtype: torch.dtype, example: Tensor, pieces: int) -> Optimized:
    net = copy.deepcopy(base.net)
    if dtype != torch.int8:
        return Optimized(net.to(dtype), dtype, ())
    return Optimized(net, base.dtype, _int8_layers(net, example, pieces))


def _spike_layers(net: nn.Module, example: Tensor, pieces: int) -> list[str]:
    """Replace what is faster event by event, or with sums looked up; what was found.

    A layer's input is given to it in so many pieces.
    """
    found = []
    for name, x in _inputs(net, example).items():
        layer = best = net.get_submodule(name)
        for kind, way in _other_ways(layer, x):
            made = copy.copy(layer)
            made.__class__ = kind
            best, line = _faster(made, best, partial(_by_steps, x.chunk(pieces)))
            if best is made:
                note = f"{name}: {way} at {float(x.count_nonzero()) / x.numel():.1%} active input"
                found.append(f"{note}: {line}")
        if best is not layer and name:
            _replace(net, name, best)
    if any(isinstance(module, LookupConv2d | LookupLinear) for module in net.modules()):
        found.append(_bytes(net, example))
    return found


def _bytes(net: nn.Module, example: Tensor) -> str:
    return f"the spikes of {send_bytes(net, example)} neurons travel as bytes"


def _other_ways(layer: nn.Module, x: Tensor) -> list[tuple[type[nn.Module], str]]:
    """Layers that compute the same of such an input in another way on CPUs, a word for each."""
    linear = isinstance(layer, nn.Linear)
    if not x.is_cpu or (isinstance(layer, nn.Conv2d) and not can_be_event_driven(layer)):
        return []
    ways: list[tuple[type[nn.Module], str]] = [
        (EventLinear if linear else EventConv2d, "event driven")
    ]
    if bool(((x == 0) | (x == 1)).all()):
        ways.append((LookupLinear if linear else LookupConv2d, "sums looked up"))
    return ways


def _int8_layers(net: nn.Module, example: Tensor, pieces: int) -> list[str]:
    """Give weights of 8 bits to what is faster with them; what was found."""
    found = []
    for name, x in _inputs(net, example).items():
        layer = net.get_submodule(name)
        for made in _in_int8(layer, grid_step(x)):
            steps = {type(layer): x.chunk(pieces), type(made): to_bytes(x, made.step).chunk(pieces)}
            run = partial(_on_its_own, steps)
            chosen, line = _faster(made, layer, run)
            if chosen is made and name:
                found.append(f"{name}: 8-bit weights, {made.extra_repr()}: {line}")
                _replace(net, name, made)
                layer = made
    for module in net.modules():
        module.__class__ = spike_pool(module) or type(module)
    return [*found, _bytes(net, example)]


def _in_int8(layer: nn.Module, step: float | None) -> list[Int8Conv2d | Int8Linear]:
    """The layer with weights of 8 bits, in either way that it has; none for another input."""
    if step is None or watched(layer):  # whose hooks another layer would not have
        return []
    if isinstance(layer, nn.Linear):
        return [Int8Linear(layer, step, sparse) for sparse in (False, True)]
    assert isinstance(layer, nn.Conv2d)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return []
    ways = (False, True) if can_be_event_driven(layer) else (False,)
    return [Int8Conv2d(layer, step, sparse) for sparse in ways]


def _on_its_own(steps: Mapping[type, Sequence[Tensor]], module: nn.Module) -> None:
    _by_steps(steps[type(module)], module)


def _inputs(net: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """What every linear layer and convolution is given, by name."""
    inputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(_keep(inputs, name))
        for name, module in net.named_modules()
        if type(module) in _LAYERS
    ]
    try:
        net(example)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


_LAYERS = (nn.Linear, nn.Conv2d, EventLinear, EventConv2d, LookupLinear, LookupConv2d)


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
        if sum(map(sum, times.values())) > _ENOUGH:
            break
    gain = statistics.median(times[before]) / statistics.median(times[made])
    better = gain > 1.0
    return made if better else before, f"{gain:.2f} times as fast, {'taken' if better else 'left'}"
