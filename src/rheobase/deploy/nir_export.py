"""A network written as a NIR file, node by node, as one forward pass runs through it."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rheobase.deploy.nir_file import NIRGraph, write_nir
from rheobase.layers.folding import fold_norms
from rheobase.measure import is_sequence
from rheobase.measure._evaluating import evaluating
from rheobase.measure.connections import each_axis
from rheobase.neurons import Neuron

__all__ = ["nir_graph", "save_nir"]

_KEPT = "_rheobase_nodes"
# Exactly these: a subclass may use its weight otherwise.
_LAYERS = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.AvgPool2d, nn.Flatten}
# What changes no values. Sums are several edges into one node.
_FREE = {
    "add", "clone", "contiguous", "expand", "flatten", "iadd", "radd", "reshape", "select",
    "squeeze", "to", "unflatten", "unsqueeze", "view", "view_as",
}  # fmt: skip


def save_nir(
    net: nn.Module, path: str | os.PathLike[str], x: Tensor, dt: float = 1e-3, pure: bool = True
) -> None:
    """Write a network as a NIR file; norms are folded into the layers before them.

    Convolutions, linear layers, average pooling, flattening, sums and integrators with or without
    a leak are nodes. How neurons reset and whether they fire at the threshold is written as the
    graph's metadata, which `load_nir` reads and other libraries pass over.

    Args:
        net: the network; stays as it is.
        path: of the file.
        x: an input of it, with one image or more.
        dt: seconds that a step stands for.
        pure: refuse what other libraries would run otherwise: a subtracting reset, where NIR's
            neurons go back to ``v_reset``.

    Raises:
        ImportError: h5py is not installed.
        ValueError: something in the network is no node of NIR: its name is told.

    Source: Pedersen et al. 2024, Nature Communications 15:8122.
    """
    write_nir(nir_graph(net, x, dt, pure), path)


def nir_graph(net: nn.Module, x: Tensor, dt: float = 1e-3, pure: bool = True) -> NIRGraph:
    """The graph that `save_nir` writes."""
    made = copy.deepcopy(net).eval()
    fold_norms(made, x)
    with evaluating(made):
        steps, images = made(x).shape[:2]
        writer = _Writer(dt, pure)
        shape = x.shape[2:] if is_sequence(x, steps, images) else x.shape[1:]
        given = x.view_as(x)
        setattr(given, _KEPT, (writer.add("input", {"type": "Input", "shape": list(shape)}, ()),))
        handles = []
        for name, module in made.named_modules():
            if name and type(module) is not nn.Identity:
                handles.append(module.register_forward_pre_hook(writer.enter(name)))
                handles.append(module.register_forward_hook(writer.leave))
        try:
            with writer:
                y = made(given)
        finally:
            for handle in handles:
                handle.remove()
    writer.add("output", {"type": "Output", "shape": list(y.shape[2:])}, _nodes(y))
    return NIRGraph(writer.nodes, tuple(dict.fromkeys(writer.edges)), writer.metadata())


class _Writer(TorchFunctionMode):
    """Follows every tensor to the nodes whose sum it is."""

    def __init__(self, dt: float, pure: bool) -> None:
        super().__init__()
        self.dt, self.pure = dt, pure
        self.nodes: dict[str, dict[str, Any]] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.conventions: set[tuple[str, bool]] = set()
        self._inside: list[str] = []
        self._written = 0

    def metadata(self) -> dict[str, Any]:
        """What NIR has no words for.

        Raises:
            ValueError: neurons of one network reset in different ways.
        """
        if len(self.conventions) > 1:
            raise ValueError(f"neurons of one file reset and fire alike, got {self.conventions}")
        told: dict[str, Any] = {"dt": self.dt}
        for reset, strict in self.conventions:
            told |= {"reset": reset, "strict": strict}
        return told

    def add(self, name: str, fields: dict[str, Any], heard: tuple[str, ...]) -> str:
        """A node and its edges; its name."""
        self.nodes[name] = fields
        self.edges += [(source, name) for source in heard]
        return name

    def enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self._inside.append(name)
            self._written += _is_node(module)

        return hook

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self._inside.pop()
        if not _is_node(module):
            return
        self._written -= 1
        if self._written:
            return
        heard = _nodes(args[0])
        if not heard:
            raise ValueError(f"what {name} is given cannot be followed from the input")
        if name in self.nodes:
            raise ValueError(f"{name} is called twice, which would be two nodes of one weight")
        fields = self._fields(name, module, args[0])
        if isinstance(module, nn.Linear | nn.Flatten):
            heard = self._flat(name, heard, args[0], isinstance(module, nn.Linear))
        if not fields:  # nothing to flatten
            setattr(output, _KEPT, heard)
            return
        setattr(output, _KEPT, (self.add(name, fields, heard),))
        self.shapes[name] = self._shape(module, output)

    def _shape(self, module: nn.Module, output: Tensor) -> tuple[int, ...]:
        """Of one image at one step: a neuron's are behind time and batch, others' behind both."""
        return tuple(output.shape[2 if isinstance(module, Neuron) else 1 :])

    def _flat(self, name: str, heard: tuple[str, ...], x: Tensor, needed: bool) -> tuple[str, ...]:
        """The node that flattens what a linear layer hears, where a function did."""
        shape = self.shapes.get(heard[0], ())
        if not needed or len(shape) < 2 or x.dim() != 2:
            return heard
        fields = {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": list(shape)}
        return (self.add(f"{name}.flatten", fields, heard),)

    def _fields(self, name: str, module: nn.Module, x: Tensor) -> dict[str, Any]:
        if isinstance(module, Neuron):
            return self._neuron(name, module, x)
        if isinstance(module, nn.Linear):
            return _weights("Affine" if module.bias is not None else "Linear", module)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            if module.padding_mode != "zeros":
                raise ValueError(f"{name} pads with {module.padding_mode}, NIR with zeros")
            fields = _weights(type(module).__name__, module)
            fields.setdefault("bias", np.zeros(module.out_channels, np.float32))
            sizes: dict[str, Any] = {
                "input_shape": tuple(x.shape[2:]), "stride": module.stride,
                "padding": module.padding, "dilation": module.dilation,
            }  # fmt: skip
            if isinstance(module, nn.Conv1d):  # plain numbers there
                sizes = {k: v if isinstance(v, str) else v[0] for k, v in sizes.items()}
            return fields | sizes | {"groups": module.groups}
        if isinstance(module, nn.AvgPool2d):
            if module.ceil_mode or module.divisor_override:
                raise ValueError(f"{name} rounds up or divides by another number than its window's")
            return {
                "type": "AvgPool2d",
                "kernel_size": list(each_axis(module.kernel_size, 2)),
                "stride": list(each_axis(module.stride, 2)),
                "padding": list(each_axis(module.padding, 2)),
            }
        if isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise ValueError(f"{name} flattens a part of the axes, which is not written yet")
            shape = list(x.shape[1:])
            if len(shape) < 2:
                return {}
            return {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": shape}
        return {}

    def _neuron(self, name: str, neuron: Neuron, x: Tensor) -> dict[str, Any]:
        kind = type(neuron).__name__
        if not neuron.is_plain_scan or neuron.filtered or neuron.largest != 1:
            raise ValueError(f"{name}, a {kind}, is no IF or LIF neuron, which NIR has alone")
        if not neuron.spec.charge_functions.linear or neuron.reset not in ("hard", "soft"):
            raise ValueError(f"{name}, a {kind}, is no IF or LIF neuron, which NIR has alone")
        if neuron.reset == "soft" and self.pure:
            raise ValueError(
                f"{name}, a {kind}, subtracts its threshold, where NIR's go back to v_reset; give "
                "pure=False to say so in the file's metadata, which other libraries pass over"
            )
        if neuron.v_reset:
            raise ValueError(
                f"{name}, a {kind}, starts at v_reset={neuron.v_reset}, where NIR's start at 0"
            )
        self.conventions.add(("hard" if neuron.reset == "hard" else "subtract", neuron.strict))
        given = [_one(v, name) for v in neuron.charge_coefficients(x).values()]
        charge = neuron.spec.charge_functions
        decay, gain = (float(v) for v in charge.partials(0.0, 0.0, *given)[:2])
        bias = float(charge.value(0.0, 0.0, *given))
        size = tuple(x.shape[2:])

        def filled(value: float) -> Any:
            return np.full(size, value)

        fields = {
            "v_threshold": filled(_one(neuron.threshold(x), name)),
            "v_reset": filled(0.0 if neuron.v_reset is None else neuron.v_reset),
        }
        if decay == 1.0 and bias == 0.0:
            return {"type": "IF", "r": filled(gain / self.dt), **fields}
        left = 1.0 - decay
        return {
            "type": "LIF", "tau": filled(self.dt / left), "r": filled(gain / left),
            "v_leak": filled(bias / left), **fields,
        }  # fmt: skip

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in _flat_tensors((args, kwargs)) if hasattr(one, _KEPT)]
        if self._written or not tensors:
            return out
        name = getattr(func, "__name__", "").strip("_")
        nodes = tuple(dict.fromkeys(node for one in tensors for node in _nodes(one)))
        for one in _flat_tensors(out):
            if one.is_floating_point() and one is not tensors[0]:
                setattr(one, _KEPT, self._function(name, nodes, args, one))
        return out

    def _function(
        self, name: str, nodes: tuple[str, ...], args: tuple[Any, ...], out: Tensor
    ) -> tuple[str, ...]:
        """The nodes whose sum a function's output is."""
        where = self._inside[-1] if self._inside else "the network"
        x = args[0]
        shape, *others = {self.shapes.get(node, ()) for node in nodes}
        over_all = len(shape) == 3 and x.numel() == out.numel() * math.prod(shape[1:])
        if name == "mean" and not others and over_all:
            return (self._mean(f"{where}.mean".replace(" ", "_"), nodes, shape),)
        if "add" in name and not all(isinstance(a, Tensor) and _nodes(a) for a in args[:2]):
            raise ValueError(f"NIR has no node that adds a constant, as {where} does")
        if name == "select" and not (args[1] == 0 and x.stride(0) == 0):  # of equal steps
            raise ValueError(f"NIR has no node that takes a part of values, as {where} does")
        if name not in _FREE:
            raise ValueError(f"NIR has no node for {name!r} in {where}")
        return nodes

    def _mean(self, name: str, heard: tuple[str, ...], shape: tuple[int, ...]) -> str:
        """The mean over all positions: a pooling of one window, flattened."""
        side = list(shape[1:])
        pool = {"type": "AvgPool2d", "kernel_size": side, "stride": side, "padding": [0, 0]}
        pooled = self.add(name, pool, heard)
        flat = {
            "type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": [shape[0], 1, 1]
        }  # fmt: skip
        self.shapes[f"{name}.flatten"] = shape[:1]
        return self.add(f"{name}.flatten", flat, (pooled,))


def _is_node(module: nn.Module) -> bool:
    return isinstance(module, Neuron) or type(module) in _LAYERS


def _nodes(x: Tensor) -> tuple[str, ...]:
    return tuple(getattr(x, _KEPT, ()))


def _flat_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return _flat_tensors(tuple(value.values()))
    if isinstance(value, list | tuple):
        return [one for part in value for one in _flat_tensors(part)]
    return []


def _one(value: float | Tensor, name: str) -> float:
    if not isinstance(value, Tensor):
        return float(value)
    if value.numel() > 1 and not bool((value == value.flatten()[0]).all()):
        raise ValueError(f"{name} has coefficients of each channel, which are not written yet")
    return float(value.flatten()[0])


def _weights(kind: str, module: nn.Module) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": kind}
    for key, value in module.named_parameters():
        fields[key] = value.detach().cpu().numpy()
    return fields
