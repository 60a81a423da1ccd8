"""A network as a chip sees it: populations of neurons, and the synapses between them.

It is read off one forward pass. What lies between neurons (convolutions, linear layers, norms,
average pooling, sums) adds and weighs, so it becomes synapses from neurons to neurons, one inside
another where layers follow each other. A maximum over spikes becomes a population that fires where
any of its inputs does. Whatever else stands between neurons no synapse can do; it is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rheobase.deploy.paths import Path, start
from rheobase.layers import Recurrent
from rheobase.layers.norms.base import Foldable
from rheobase.measure import Connections, is_neuron, is_sequence
from rheobase.measure._evaluating import evaluating
from rheobase.measure.connections import each_axis, of_convolution, of_linear
from rheobase.neurons import Neuron

__all__ = ["Circuit", "Population", "Projection", "circuit_of"]

Kind = Literal["neurons", "encoder", "maxima", "readout"]
Dynamics = Literal["integrator", "leaky", "other"]

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_PRODUCTS = {
    "baddbmm", "bmm", "div", "einsum", "imul", "matmul", "mul", "rmatmul", "rmul", "rtruediv",
    "scaled_dot_product_attention", "truediv", "where",
}  # fmt: skip
_CURVES = {
    "abs", "amax", "clamp", "elu", "exp", "gelu", "group_norm", "hardtanh", "instance_norm",
    "layer_norm", "leaky_relu", "max", "maximum", "minimum", "pow", "relu", "rsqrt", "sigmoid",
    "silu", "softmax", "sqrt", "square", "tanh",
}  # fmt: skip
_KEPT = "_rheobase_paths"


@dataclass(frozen=True)
class Projection:
    """The synapses from one population (or the input) to another.

    Attributes:
        source: the population's name, or "input", or what is no population (see `Circuit`).
        layers: the layers whose weights they have.
        connections: which neurons they connect; padding has none.
        events: synaptic events of one image: spikes of the source times the synapses each reaches.
            Where a layer's last axes are no positions (tokens before features), each position has
            an even share of the spikes.
    """

    source: str
    layers: tuple[str, ...]
    connections: Connections
    events: float


@dataclass(frozen=True)
class Population:
    """Neurons that have the same inputs.

    Attributes:
        name: the module's name.
        kind: "neurons"; "encoder": neurons that turn the input's values into spikes; "maxima":
            neurons that fire where any of their inputs does; "readout": sums that never fire.
        dynamics: "integrator": they add; "leaky": they lose a share of their membrane at each step;
            "other": anything else, such as gates or several states.
        shape: channels first.
        spikes: of one image, all steps.
        inputs: their synapses.
    """

    name: str
    kind: Kind
    dynamics: Dynamics
    shape: tuple[int, ...]
    spikes: float
    inputs: tuple[Projection, ...]

    @property
    def neurons(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def synapses(self) -> int:
        """Theirs."""
        return sum(projection.connections.synapses for projection in self.inputs)

    @property
    def fan_in(self) -> int:
        """Inputs of one of them."""
        return sum(projection.connections.fan_in for projection in self.inputs)


@dataclass(frozen=True)
class Circuit:
    """A network as populations and projections.

    Attributes:
        populations: in order of execution.
        steps: time steps T.
        input_spikes: spikes of the input of one image; 0 where it has other values than spikes.
        obstacles: what no synapses can do, by the population that needs it.
    """

    populations: tuple[Population, ...]
    steps: int
    input_spikes: float
    obstacles: tuple[str, ...]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of every population."""
        return tuple(one.kind for one in self.populations)


def circuit_of(net: nn.Module, x: Tensor) -> Circuit:
    """Read populations and projections off ``net(x)``, in evaluation mode.

    Args:
        net: returns ``[T, N, classes]``.
        x: its input, images ``[N, ...]``, frames ``[T, N, C, H, W]`` or features ``[T, N, F]``.

    Raises:
        ValueError: the network has no neurons.

    >>> from rheobase.models import create_model
    >>> net = create_model("plif_net_mnist", width=8, hidden=32)
    >>> circuit = circuit_of(net, torch.rand(2, 1, 28, 28))
    >>> for one in circuit.populations[:3]:
    ...     print(one.name, one.kind, one.neurons, one.fan_in)
    conv_fc.2 encoder 6272 9
    conv_fc.3 maxima 1568 4
    conv_fc.6 neurons 1568 72
    """
    with evaluating(net):
        steps, images = net(x).shape[:2]
        tracer = _Tracer(x, steps, images)
        with tracer, tracer.following(net):
            y = net(tracer.tagged(x))
    tracer.read_out(y)
    circuit = tracer.circuit()
    if not {"neurons", "encoder"} & set(circuit.kinds):
        raise ValueError(f"{type(net).__name__} has no spiking neurons: there is nothing to place")
    return circuit


@dataclass
class _Source:
    """What sends spikes, and how many from each position, all images and steps together."""

    shape: tuple[int, ...]
    sent: Tensor
    is_spikes: bool = True


class _Tracer(TorchFunctionMode):
    """Follows every tensor from spikes to the neurons that it reaches."""

    def __init__(self, x: Tensor, steps: int, images: int) -> None:
        super().__init__()
        self.sequence = is_sequence(x, steps, images)
        self.steps, self.images = steps, images
        self.sources: dict[str, _Source] = {}
        self.kinds: dict[str, Kind] = {}
        self.dynamics: dict[str, Dynamics] = {}
        self.reached: dict[str, dict[Path, None]] = {}
        self._inside: list[str] = []
        self._neuron = 0
        self._recurrent: set[str] = set()
        self._graded: set[str] = set()
        self._changing: list[str] = []

    def tagged(self, x: Tensor) -> Tensor:
        """The input, known as such."""
        shape = tuple(x.shape[2 if self.sequence else 1 :])
        shape = shape if len(shape) > 1 else (*shape, 1)
        spikes = bool(((x >= 0) & (x == x.round())).all())
        again = 1 if self.sequence else self.steps  # a static image comes at every step
        sent = x.reshape(-1, *shape).abs().double().sum((0, 1)) * again
        self.sources["input"] = _Source(shape, sent, spikes)
        x = x.view_as(x)
        setattr(x, _KEPT, (start("input", shape),))
        return x

    def following(self, net: nn.Module) -> _Hooks:
        return _Hooks(self, net)

    def enter(self, name: str, module: nn.Module) -> None:
        self._inside.append(name)
        self._neuron += is_neuron(module)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self._inside.pop()
        outputs, paths = list(_tensors(output)), _paths(args)
        if is_neuron(module):
            self._neuron -= 1
            if not self._neuron:
                path = self._populate(name, "neurons", outputs[0], paths)
                setattr(outputs[0], _KEPT, (path,))
                self.dynamics[path.source] = _dynamics(module)
                if isinstance(module, Recurrent):
                    self._recurrent.add(path.source)
                if not _is_binary(outputs[0]):
                    self._graded.add(path.source)
        elif not self._neuron and paths:
            if isinstance(module, Foldable) and _changes(module):
                self._changing.append(name)
            for one in outputs:  # of modules with kernels of their own, such as norms
                if not hasattr(one, _KEPT):
                    setattr(one, _KEPT, paths)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        paths = _paths((args, kwargs))
        if self._neuron or not paths:
            return out
        name = getattr(func, "__name__", "").strip("_")
        if name in _CONVOLUTIONS:
            link, _ = of_convolution(args, kwargs, out)
            paths = tuple(path.through(self._inside[-1], link, link.inputs[1:]) for path in paths)
        elif func is F.linear:
            paths = self._linear(paths, of_linear(args[1], None), out)
        elif "max_pool" in name:
            paths = self._maxima(paths, args, kwargs, out)
        elif "avg_pool" in name:
            paths = _pooled(paths, args, kwargs, out)
        elif name in ("mean", "sum"):
            paths = _summed(paths, args[0], out)
        elif name in _CURVES:
            paths = self._foreign_source(name, paths, next(_tensors(out)))
        elif name in _PRODUCTS and sum(hasattr(one, _KEPT) for one in _tensors(args)) > 1:
            paths = self._foreign_source("product of activations", paths, out)
        elif isinstance(out, Tensor) and out.is_complex() and name != "get":
            paths = self._foreign_source("Fourier transform", paths, out)
        for tensor in _tensors(out):
            if tensor.is_floating_point() or tensor.is_complex():
                setattr(tensor, _KEPT, paths)
        return out

    def _linear(self, paths: tuple[Path, ...], link: Connections, out: Tensor) -> tuple[Path, ...]:
        features, outputs = link.inputs[0], link.outputs[0]
        rows = out.numel() // outputs
        found = []
        for path in paths:
            count = math.prod(path.positions)
            tokens = features == path.channels or (
                features != path.channels * count
                and rows in (self.images * count, self.images * self.steps * count)
            )
            if tokens:
                axes = len(path.positions)
                one, none = (1,) * axes, (0,) * axes
                each = Connections(
                    (features, *path.positions), (outputs, *path.positions), one, one, none, one
                )
                found.append(path.through(self._inside[-1], each, path.positions))
            else:
                whole = replace(path.everywhere(), layers=(*path.layers, self._inside[-1]))
                found.append(replace(whole, channels=outputs))
        return tuple(found)

    def _maxima(
        self, paths: tuple[Path, ...], args: Any, kwargs: Any, out: Tensor
    ) -> tuple[Path, ...]:
        """Neurons in place of a maximum over spikes."""
        x = args[0]
        spikes = _is_binary(x) and all(path.is_identity for path in paths)
        pooled = _pooled(paths, args, kwargs, out)
        if not spikes:
            return self._foreign_source("maximum of values that are no spikes", pooled, out)
        return (self._populate(self._inside[-1], "maxima", out, pooled),)

    def _foreign_source(self, what: str, paths: tuple[Path, ...], out: Tensor) -> tuple[Path, ...]:
        where = self._inside[-1] if self._inside else "the network"
        name = f"{what} in {where}"
        shape, sent = self._sent(out, paths)
        self.sources[name] = _Source(shape, sent, False)
        return (start(name, shape),)

    def _populate(self, name: str, kind: Kind, out: Tensor, paths: tuple[Path, ...]) -> Path:
        """Neurons that fire as ``out`` says, with these inputs."""
        out = out if kind != "maxima" else out.reshape(-1, self.images, *out.shape[1:])
        shape, sent = self._sent(out, paths)
        reached = dict.fromkeys(_towards(path, shape) for path in paths)
        while name in self.reached and self.reached[name] != reached:  # used at another place, too
            stem, _, number = name.partition("@")
            name = f"{stem}@{int(number or 1) + 1}"
        if name in self.sources:  # called for step after step
            self.sources[name].sent += sent
        else:
            self.sources[name] = _Source(shape, sent)
        self.kinds[name], self.reached[name] = kind, reached
        return start(name, shape)

    def _sent(self, out: Tensor, paths: tuple[Path, ...]) -> tuple[tuple[int, ...], Tensor]:
        """Shape of a population, channels first, and how often each position fires."""
        batch = self.images * self.steps
        if out.numel() % batch or out.shape[0] == self.images:
            batch = self.images
        if out.dim() > 1 and out.shape[1] == self.images:
            batch = self.images * out.shape[0]
        count = out.numel() // batch
        positions = max((path.positions for path in paths), key=math.prod, default=(1,))
        places = math.prod(positions)
        if count % places:
            positions, places = (1,), 1
        shape = (count // places, *positions)
        # An even share for each position: which axis of `out` are positions is not told.
        axes = tuple(out.shape[-len(positions) :])
        if axes == positions:
            sent = out.reshape(-1, *positions).abs().double().sum(0)
        else:
            sent = torch.full(positions, out.abs().double().sum().item() / places).double()
        return shape, sent

    def read_out(self, y: Tensor) -> None:
        """Layers behind the last neurons become sums that never fire."""
        paths = _paths(y)
        weighted = tuple(path for path in paths if path.layers)
        if weighted:
            self._populate("readout", "readout", torch.zeros_like(y), weighted)
        for path in paths:
            if not path.layers and not self.sources[path.source].is_spikes:
                self.reached.setdefault("output", {})[path] = None

    def circuit(self) -> Circuit:
        """What was found."""
        populations = []
        obstacles = [f"the gains of {name} change from step to step" for name in self._changing]
        for name, kind in self.kinds.items():
            paths = list(self.reached[name])
            if name in self._graded:
                obstacles.append(f"{name} sends other values than 0 and 1")
            if not paths:
                obstacles.append(f"what {name} takes cannot be followed")
            if name in self._recurrent:
                own = start(name, self.sources[name].shape).everywhere()
                paths.append(replace(own, layers=(f"{name}.feedback",)))
            analog = [path for path in paths if path.source == "input"]
            analog = [] if self.sources["input"].is_spikes else analog
            for path in paths:
                if not self.sources[path.source].is_spikes and path.source != "input":
                    obstacles.append(f"{name} takes the {path.source}")
            if analog and len(analog) == len(paths):
                kind = "encoder" if kind == "neurons" else kind
            elif analog:
                obstacles.append(f"{name} takes values of the input beside spikes")
            sent = 0.0 if kind == "readout" else self.sources[name].sent.sum().item()
            dynamics = self.dynamics.get(name, "integrator")
            inputs = tuple(self._projection(path) for path in paths)
            shape, spikes = self.sources[name].shape, sent / self.images
            populations.append(Population(name, kind, dynamics, shape, spikes, inputs))
        for path in self.reached.get("output", {}):
            obstacles.append(f"the output takes the {path.source}")
        come = self.sources["input"]
        spikes = come.sent.sum().item() / self.images if come.is_spikes else 0.0
        return Circuit(tuple(populations), self.steps, spikes, tuple(dict.fromkeys(obstacles)))

    def _projection(self, path: Path) -> Projection:
        link = path.connections()
        source = self.sources[path.source]
        events = 0.0
        if source.is_spikes:
            sent = source.sent
            if sent.shape != link.inputs[1:]:
                sent = sent.reshape(link.inputs[1:])
            events = link.events(sent) / self.images
        return Projection(path.source, path.layers, link, events)


class _Hooks:
    """Tells a tracer which module is running."""

    def __init__(self, tracer: _Tracer, net: nn.Module) -> None:
        self.tracer, self.net = tracer, net
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self.net.named_modules():
            shown = name or type(self.net).__name__
            self.handles.append(module.register_forward_pre_hook(self._enter(shown)))
            self.handles.append(module.register_forward_hook(self.tracer.leave))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda module, args: self.tracer.enter(name, module)


def _dynamics(module: nn.Module) -> Dynamics:
    """What kind of neuron a module is."""
    if isinstance(module, Recurrent):
        return _dynamics(module.neuron)
    if not isinstance(module, Neuron) or not module.has_scans_step:
        return "other"
    if module.reset not in ("hard", "soft") or not module.spec.charge_functions.linear:
        return "other"
    return "integrator" if module.leak_factor == 1.0 else "leaky"


def _changes(norm: Foldable) -> bool:
    """Whether a norm is another at each step, which no synapses can be."""
    if norm.folded:
        return norm.folded_gain is not None
    return norm.scale_and_shift()[0].dim() > 1 or norm.gain() is not None


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, Iterable) and not isinstance(value, str | torch.Size):
        for one in value:
            yield from _tensors(one)


def _paths(value: Any) -> tuple[Path, ...]:
    """The paths of all tensors in it, each once."""
    return tuple(dict.fromkeys(p for one in _tensors(value) for p in getattr(one, _KEPT, ())))


def _summed(paths: tuple[Path, ...], x: Tensor, out: Tensor) -> tuple[Path, ...]:
    """A sum over all positions; one over time or channels leaves paths as they are."""
    found = []
    for path in paths:
        count = math.prod(path.positions)
        whole = count > 1 and out.numel() and x.numel() == out.numel() * count
        found.append(path.summed() if whole else path)
    return tuple(found)


def _pooled(paths: tuple[Path, ...], args: Any, kwargs: Any, out: Tensor) -> tuple[Path, ...]:
    """Behind the windows of a pooling, of each channel by itself."""
    axes = len(paths[0].positions)
    before, behind = tuple(args[0].shape[-axes:]), tuple(out.shape[-axes:])
    names = ("input", "kernel_size", "stride", "padding")
    given = dict(zip(names, args, strict=False)) | kwargs
    if "kernel_size" in given:
        kernel = each_axis(given["kernel_size"], axes)
        stride = each_axis(given.get("stride") or kernel, axes)
        padding = each_axis(given.get("padding") or 0, axes)
    else:  # an adaptive one
        stride = tuple(max(1, a // b) for a, b in zip(before, behind, strict=True))
        kernel, padding = stride, (0,) * axes
    one = (1,) * axes
    return tuple(
        path.through(
            None,
            Connections(
                (path.channels, *before), (path.channels, *behind), kernel, stride, padding, one,
                path.channels,
            ),
            before,
        )
        for path in paths
    )  # fmt: skip


def _towards(path: Path, shape: tuple[int, ...]) -> Path:
    """The path with the axes and channels of the neurons that it reaches."""
    path = replace(path, channels=shape[0])
    found = path.at(shape[1:])
    if found.positions == shape[1:]:
        return found
    return replace(found.everywhere(math.prod(shape[1:])), channels=shape[0]).at(shape[1:])
