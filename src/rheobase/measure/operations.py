"""Operation counting: what one forward pass computes, layer by layer, before any convention.

The counts here are raw: dense multiply-accumulates (MACs), of every operand how many values were
nonzero and whether they were spikes, the synapses those reached, and what the neurons did. What a
MAC or an addition costs, and which layer pays which, is a `rheobase.measure.Convention`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rheobase.measure._evaluating import evaluating
from rheobase.measure.connections import Connections, of_convolution, of_linear
from rheobase.measure.rates import is_neuron

__all__ = [
    "LayerCount", "NeuronCount", "OperandCount", "OperationReport", "count_operations",
    "is_sequence",
]  # fmt: skip

Values = Literal["spikes", "integers", "analog"]

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_PRODUCTS = (
    torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__, Tensor.__rmatmul__,
)  # fmt: skip
_OPAQUE = (torch.einsum, F.multi_head_attention_forward)


@dataclass(frozen=True)
class OperandCount:
    """The values that met one input of a layer, over all steps and images.

    Attributes:
        values: "spikes" (all 0 or 1), "integers" (such as a sum of spikes), or "analog".
        nonzero: how many were not zero.
        size: how many there were.
    """

    values: Values
    nonzero: int
    size: int

    @property
    def rate(self) -> float:
        """Density in [0, 1]: nonzero / size. An integer counts once, whatever its value."""
        return self.nonzero / self.size


@dataclass(frozen=True)
class LayerCount:
    """The raw counts of one layer, for one image.

    Attributes:
        name: the module's name; a product of activations adds "@1", "@2" in order of execution.
        kind: "conv", "linear", or "product" (activations times activations, as in attention).
        macs: dense MACs of one time step, zero padding included.
        steps: time steps at which it was computed; 1 where a repeated image is computed once.
        operands: its input; both factors of a product.
        first: whether it is the layer that reads the network's input.
        connections: its synapses; None of a product, which has no weights.
        events: synapses that inputs other than zero reached, in one image and all steps computed:
            exact, where `sops` counts the zero padding too. Of a product the same as `sops`.
    """

    name: str
    kind: Literal["conv", "linear", "product"]
    macs: int
    steps: int
    operands: tuple[OperandCount, ...]
    first: bool
    connections: Connections | None
    events: float

    @property
    def spiking(self) -> OperandCount:
        """The operand whose events drive the layer: its input; of a product, the sparser spikes."""
        return min(self.operands, key=lambda o: (o.values != "spikes", o.rate))

    @property
    def sops(self) -> float:
        """Synaptic operations of one image: rate times steps times dense MACs."""
        return self.spiking.rate * self.steps * self.macs

    @property
    def bias_adds(self) -> int:
        """Biases added in one image and all steps computed."""
        if self.connections is None or not self.connections.bias:
            return 0
        return math.prod(self.connections.outputs) * self.steps


@dataclass(frozen=True)
class NeuronCount:
    """What one layer of neurons did, for one image.

    Attributes:
        name: the module's name.
        updates: neurons times time steps.
        spikes: how many they sent; an integer spike of 3 is three.
        state: numbers that a neuron remembers.
        leaks: whether the membrane is multiplied at each step.
    """

    name: str
    updates: int
    spikes: float
    state: int
    leaks: bool


@dataclass(frozen=True)
class OperationReport:
    """Raw counts of one forward pass: layers in order of execution, time steps, images."""

    layers: tuple[LayerCount, ...]
    steps: int
    images: int
    neurons: tuple[NeuronCount, ...] = ()

    @property
    def macs(self) -> int:
        """Dense MACs of one image at one time step, all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def spikes(self) -> float:
        """Spikes of one image, all neurons and steps."""
        return sum(layer.spikes for layer in self.neurons)

    @property
    def neuron_count(self) -> int:
        """How many neurons there are."""
        return sum(layer.updates for layer in self.neurons) // self.steps

    @property
    def synapses(self) -> int:
        """Synapses, each weight counted wherever it is used."""
        return sum(layer.connections.synapses for layer in self.layers if layer.connections)

    @property
    def weights(self) -> int:
        """Weights of the layers counted, each once, without biases."""
        return sum(layer.connections.weights for layer in self.layers if layer.connections)


def count_operations(net: nn.Module, x: Tensor) -> OperationReport:
    """Count the operations of ``net(x)``, in evaluation mode.

    Counted are convolutions, linear layers and products of two activations (``@``, ``matmul``,
    ``scaled_dot_product_attention``). Not counted, as in the papers: norms (folded into the layer
    before), neurons, pooling, residual additions, softmax, biases.

    Args:
        net: returns ``[T, N, classes]``, or ``[N, classes]`` for a network without time.
        x: its input.

    Raises:
        NotImplementedError: the network uses an operation whose products cannot be seen.

    >>> report = count_operations(nn.Linear(8, 2), torch.ones(3, 8))
    >>> report.layers[0].macs, report.layers[0].spiking.rate
    (16, 1.0)
    """
    with evaluating(net), _Counter() as counter, counter.following(net):
        y = net(x)
    steps, images = (y.shape[0], y.shape[1]) if y.dim() == 3 else (1, y.shape[0])
    first = counter.calls[0].name if counter.calls else ""
    names = dict.fromkeys(call.name for call in counter.calls)
    layers = tuple(
        _layer([c for c in counter.calls if c.name == name], steps, images, name == first)
        for name in names
    )
    neurons = tuple(_neurons(name, calls, images) for name, calls in counter.neurons.items())
    return OperationReport(layers, steps, images, neurons)


def is_sequence(x: Tensor, steps: int, images: int) -> bool:
    """Whether an input is ``[T, N, ...]``: frames of five axes, or features ``[T, N, F]``."""
    return x.dim() == 5 or (x.dim() == 3 and x.shape[:2] == (steps, images))


@dataclass(frozen=True)
class _Call:
    name: str
    kind: Literal["conv", "linear", "product"]
    macs: int
    operands: tuple[OperandCount, ...]
    leading: tuple[int, ...]
    connections: Connections | None
    events: float


def _layer(calls: list[_Call], steps: int, images: int, first: bool) -> LayerCount:
    """One layer from all its calls; a network that loops over time calls it every step."""
    ran = sum(_steps_of(call.leading, steps, images) for call in calls)
    operands = tuple(_merge(counts) for counts in zip(*(c.operands for c in calls), strict=True))
    macs = sum(call.macs for call in calls) // (images * ran)
    connections = calls[0].connections
    if connections is None:
        events = min(operands, key=lambda o: (o.values != "spikes", o.rate)).rate * ran * macs
    else:
        events = sum(call.events for call in calls) / images
        if calls[0].kind == "linear":  # at how many tokens, the call alone does not tell
            tokens = macs // connections.weights
            sizes = (connections.inputs[0], tokens), (connections.outputs[0], tokens)
            connections = replace(connections, inputs=sizes[0], outputs=sizes[1])
    return LayerCount(calls[0].name, calls[0].kind, macs, ran, operands, first, connections, events)


def _neurons(name: str, calls: list[tuple[nn.Module, int, float]], images: int) -> NeuronCount:
    updates, spikes = sum(call[1] for call in calls), sum(call[2] for call in calls)
    module = calls[0][0]
    leaks = getattr(module, "leak_factor", None) != 1.0
    return NeuronCount(
        name, updates // images, spikes / images, getattr(module, "states", 1), leaks
    )


def _steps_of(leading: tuple[int, ...], steps: int, images: int) -> int:
    """How many steps one call computed: its input is ``[T * N, ...]``, ``[T, N, ...]`` or
    ``[N, ...]``."""
    together = leading[0] == steps * images or leading[:2] == (steps, images)
    return steps if together else 1


def _merge(counts: Sequence[OperandCount]) -> OperandCount:
    order: tuple[Values, ...] = ("spikes", "integers", "analog")
    values = max((count.values for count in counts), key=order.index)
    return OperandCount(values, sum(c.nonzero for c in counts), sum(c.size for c in counts))


def _operand(x: Tensor) -> OperandCount:
    values: Values = "analog"
    if bool((x == x.round()).all()):
        values = "spikes" if bool(((x == 0) | (x == 1)).all()) else "integers"
    return OperandCount(values, int(torch.count_nonzero(x)), x.numel())


class _Counter(TorchFunctionMode):
    """Sees every torch function of the forward pass, and knows which module called it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.neurons: dict[str, list[tuple[nn.Module, int, float]]] = {}
        self._inside: list[str] = []
        self._products: Counter[str] = Counter()

    @contextmanager
    def following(self, net: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in net.named_modules():
            shown = name or type(net).__name__
            handles.append(module.register_forward_pre_hook(self._enter(shown)))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda module, args: self._inside.append(name)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self._inside.pop()
        if is_neuron(module):
            fired = output[0] if isinstance(output, tuple) else output
            spikes = fired.double().abs().sum().item()
            self.neurons.setdefault(name, []).append((module, fired.numel(), spikes))
        if not self._inside:
            self._products.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _OPAQUE:
            raise NotImplementedError(
                f"{func.__name__} in {self._inside[-1]!r} hides its products from the counter; "
                "write them as matmul or scaled_dot_product_attention"
            )
        out = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            connections, nonzero = of_convolution(args, kwargs or {}, out)
            macs = math.prod(args[1].shape[1:]) * out.numel()
            self._weighted("conv", args[0], macs, connections, connections.events(nonzero))
        elif func is F.linear:
            connections = of_linear(
                args[1], args[2] if len(args) > 2 else (kwargs or {}).get("bias")
            )
            events = connections.events(torch.count_nonzero(args[0]).view(1).cpu())
            self._weighted("linear", args[0], args[1].shape[1] * out.numel(), connections, events)
        elif func in _PRODUCTS:
            self._product(args[0], args[1], out.numel())
        elif func is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            attention = torch.softmax(q @ k.transpose(-2, -1), -1)
            self._product(q, k.transpose(-2, -1), attention.numel())
            self._product(attention, v, out.numel())
        return out

    def _weighted(
        self,
        kind: Literal["conv", "linear"],
        x: Tensor,
        macs: int,
        connections: Connections,
        events: float,
    ) -> None:
        leading = tuple(x.shape[:2])
        self.calls.append(
            _Call(self._inside[-1], kind, macs, (_operand(x),), leading, connections, events)
        )

    def _product(self, a: Tensor, b: Tensor, out: int) -> None:
        where = self._inside[-1]
        self._products[where] += 1
        name = f"{where}@{self._products[where]}"
        operands = (_operand(a), _operand(b))
        leading = tuple(a.shape[:2])
        self.calls.append(_Call(name, "product", a.shape[-1] * out, operands, leading, None, 0.0))
