"""Networks from NIR files, run by our neurons.

NIR writes neurons as differential equations in seconds; here they are stepped by forward Euler,
v <- v + dt / tau ((v_leak - v) + r I), as SpikingJelly and snnTorch do. What NIR does not say (dt,
how a spike resets, whether a membrane at its threshold fires) is an argument; files of `save_nir`
say it themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.deploy.nir_file import NIRGraph, read_nir
from rheobase.layers import over_time
from rheobase.neurons import Neuron
from rheobase.stateful import Stateful

__all__ = ["NIRNetwork", "NIRNeuron", "load_nir"]

Reset = Literal["hard", "subtract", "subtract_next", "multi"]
RESETS: tuple[Reset, ...] = ("hard", "subtract", "subtract_next", "multi")

_MOST = float(2**20)  # spikes of one step
_NEVER = 1e30  # a threshold


def load_nir(
    path: str | os.PathLike[str],
    dt: float | None = None,
    reset: Reset | None = None,
    strict: bool | None = None,
    tau_in_steps: bool = False,
) -> NIRNetwork:
    """A network from a NIR file.

    Args:
        path: the file.
        dt: seconds of a time step; as the file says, else 1e-3.
        reset: "hard" sets the membrane to ``v_reset`` (NIR's own meaning); "subtract" takes the
            threshold off at once (SpikingJelly's soft reset, sinabs); "subtract_next" takes it off
            a step later, undecayed (snnTorch); "multi" subtracts as often as the threshold goes
            into the membrane, and sends as many spikes (sinabs). As the file says, else "hard".
        strict: fire above the threshold only, as NIR says, not at it, as most libraries do. As the
            file says, else True.
        tau_in_steps: time constants were multiplied by dt, which norse 1.1 does when it writes.

    Raises:
        ImportError: h5py is not installed.
        ValueError: no NIR file; a node that is not known; a time constant shorter than dt.

    Source: Pedersen et al. 2024, Nature Communications 15:8122.
    """
    graph = read_nir(path)
    told = graph.metadata
    dt = float(told.get("dt", 1e-3)) if dt is None else dt
    return NIRNetwork(
        graph,
        dt,
        told.get("reset", "hard") if reset is None else reset,
        bool(told.get("strict", True)) if strict is None else strict,
        1.0 / dt if tau_in_steps else 1.0,
    )


class NIRNetwork(nn.Module):
    """The network of a graph.

    Weights are of PyTorch's default dtype.

    Args:
        graph: nodes and edges.
        dt: seconds of a time step.
        reset: of spiking neurons, as in `load_nir`.
        strict: fire above the threshold only.
        tau_scale: what time constants are multiplied by.

    Raises:
        ValueError: as `load_nir`.

    >>> affine = {"type": "Affine", "weight": np.ones((1, 2)), "bias": np.zeros(1)}
    >>> neuron = {"type": "IF", "r": np.ones(1), "v_threshold": np.ones(1), "v_reset": np.zeros(1)}
    >>> nodes = {"in": {"type": "Input"}, "a": affine, "n": neuron, "out": {"type": "Output"}}
    >>> net = NIRNetwork(NIRGraph(nodes, (("in", "a"), ("a", "n"), ("n", "out"))), dt=1.0)
    >>> net(torch.ones(4, 1, 2)).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        graph: NIRGraph,
        dt: float,
        reset: Reset = "hard",
        strict: bool = True,
        tau_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not dt > 0:
            raise ValueError(f"dt is above 0 seconds, got {dt}")
        if reset not in RESETS:
            raise ValueError(unknown_name("reset", reset, RESETS))
        self.dt = dt
        self._order = graph.order()
        self._hears = {name: [s for s, t in graph.edges if t == name] for name in self._order}
        self._inputs = [n for n in self._order if graph.nodes[n].get("type") == "Input"]
        self._outputs = [n for n in self._order if graph.nodes[n].get("type") == "Output"]
        if len(self._inputs) != 1 or len(self._outputs) != 1:
            raise ValueError(
                f"a graph has one input and one output here, got {self._inputs}, {self._outputs}"
            )
        setting = _Setting(dt, reset, strict, tau_scale)
        self.nodes = nn.ModuleDict(
            {_key(name): _node(name, graph.nodes[name], setting) for name in self._order}
        )
        self.to(torch.get_default_dtype())

    def forward(self, x: Tensor) -> Tensor:
        """What the output node is given at every step, ``[T, N, ...]``.

        Args:
            x: ``[T, N, ...]``, of the input node's shape.

        Raises:
            ValueError: ``x`` has no time and batch axis.
        """
        if x.dim() < 3:
            raise ValueError(f"the network takes [T, N, ...], got shape {list(x.shape)}")
        values: dict[str, Tensor] = {}
        for name in self._order:
            heard = [values[source] for source in self._hears[name]]
            total = x if name in self._inputs else sum(heard[1:], start=heard[0])
            values[name] = over_time(total, self.nodes[_key(name)])
        return values[self._outputs[0]]


def _key(name: str) -> str:
    """Module names have no dots."""
    return name.replace(".", "_")


class NIRNeuron(Neuron):
    r"""A neuron of NIR: :math:`h = d\,u + g\,I + b`, one number for all neurons or one for each.

    Args:
        decay: d, of the membrane.
        gain: g, of the input.
        bias: b.
        threshold: at which it fires.
        v_reset: where a hard reset leads.
        reset: as in `load_nir`.
        strict: fire above the threshold only.
        current_decay: of a synapse's current in the input's place; None: it has none.
    """

    charge = "affine"

    def __init__(
        self,
        decay: Tensor,
        gain: Tensor,
        bias: Tensor,
        threshold: Tensor,
        v_reset: Tensor,
        reset: Reset,
        strict: bool,
        current_decay: Tensor | None = None,
    ) -> None:
        super().__init__(v_reset=0.0 if reset == "hard" else None, strict=strict)
        self.kind = reset
        self.filtered = current_decay is not None
        self.states = 2 if self.filtered else 1
        self.largest = None if reset == "multi" else 1
        for name, value in {
            "decay": decay, "gain": gain, "bias": bias, "least": threshold, "back_to": v_reset,
            "current_decay": current_decay,
        }.items():  # fmt: skip
            self.register_buffer(name, value)

    decay: Tensor
    gain: Tensor
    bias: Tensor
    least: Tensor
    back_to: Tensor
    current_decay: Tensor | None

    @property
    def fire(self) -> str:
        """By the threshold, or as often as it goes into the membrane."""
        return "whole" if self.kind == "multi" else super().fire

    @property
    def reset(self) -> str:
        """By the convention."""
        return "after_any" if self.kind == "subtract_next" else super().reset

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Decay, gain and bias."""
        return {"decay": _plain(self.decay), "gain": _plain(self.gain), "bias": _plain(self.bias)}

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With threshold and reset."""
        values: dict[str, float | Tensor] = {}
        if self.current_decay is not None:
            values["current_decay"] = _plain(self.current_decay)
        values |= self.charge_coefficients(x)
        values["threshold"] = _plain(self.least)
        if self.kind == "hard":
            values["v_reset"] = _plain(self.back_to)
        elif self.kind == "subtract_next":  # what is left of it a step later is the threshold
            values["amount"] = _plain(self.least / self.decay)
        elif self.kind == "multi":
            values["levels"] = _MOST
        return values | self.surrogate_coefficients(x)


def _plain(value: Tensor) -> float | Tensor:
    """One number where all are the same."""
    return value.flatten()[0].item() if bool((value == value.flatten()[0]).all()) else value


class _Integrator(nn.Module):
    """A membrane that never fires, and is the output."""

    def __init__(self, neuron: NIRNeuron) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        membrane: Tensor = self.neuron(x, tap="v")[1]
        return membrane


class _Delay(Stateful):
    """Values as they were some steps before, each neuron its own; 0 before the first."""

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", steps)

    steps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        most = int(self.steps.max())
        before = x.new_zeros(most, *x.shape[1:]) if self.carried is None else self.carried
        whole = torch.cat([before, x])
        self.carry(whole[len(x) :])
        now = torch.arange(len(x), device=x.device).view(-1, *[1] * self.steps.dim())
        index = (now + most - self.steps).unsqueeze(1)
        return whole.gather(0, index.expand(x.shape))


class _Scaled(nn.Module):
    """Values times a constant, one for all or for each."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Above(nn.Module):
    """1 where values are above a threshold."""

    def __init__(self, threshold: Tensor) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)

    threshold: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)


class _Setting:
    """What a file does not say."""

    def __init__(self, dt: float, reset: Reset, strict: bool, tau_scale: float) -> None:
        self.dt, self.reset, self.strict, self.tau_scale = dt, reset, strict, tau_scale


Fields = Mapping[str, Any]


def _node(name: str, fields: Fields, setting: _Setting) -> nn.Module:
    kind = str(fields.get("type"))
    if kind not in _KINDS:
        raise ValueError(f"node {name!r}: " + unknown_name("type", kind, _KINDS))
    try:
        return _KINDS[kind](fields, setting)
    except KeyError as error:
        raise ValueError(f"node {name!r}, a {kind}, has no {error.args[0]!r}") from error
    except ValueError as error:
        raise ValueError(f"node {name!r}, a {kind}: {error}") from error


def _identity(fields: Fields, setting: _Setting) -> nn.Module:
    return nn.Identity()


def _linear(fields: Fields, setting: _Setting) -> nn.Module:
    weight = _tensor(fields["weight"])
    made = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in fields)
    return _weighted(made, fields)


def _convolution(fields: Fields, setting: _Setting) -> nn.Module:
    weight = _tensor(fields["weight"])
    make: Any = nn.Conv1d if weight.dim() == 3 else nn.Conv2d
    groups = int(fields["groups"])
    made = make(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        _whole(fields["stride"]),
        fields["padding"] if isinstance(fields["padding"], str) else _whole(fields["padding"]),
        _whole(fields["dilation"]),
        groups,
        "bias" in fields,
    )
    return _weighted(made, fields)


def _weighted(module: Any, fields: Fields) -> nn.Module:
    for key in ("weight", "bias"):
        if key in fields:
            setattr(module, key, nn.Parameter(_tensor(fields[key])))
    made: nn.Module = module
    return made


def _pool(fields: Fields, setting: _Setting) -> nn.Module:
    kernel = _whole(fields["kernel_size"])
    return nn.AvgPool2d(kernel, _whole(fields["stride"]), _whole(fields["padding"]))


def _sum_pool(fields: Fields, setting: _Setting) -> nn.Module:
    area = float(np.prod(np.broadcast_to(fields["kernel_size"], 2)))
    return nn.Sequential(_pool(fields, setting), _Scaled(torch.tensor(area)))


def _flatten(fields: Fields, setting: _Setting) -> nn.Module:
    start, end = int(fields["start_dim"]), int(fields["end_dim"])
    return nn.Flatten(*(axis + 1 if axis >= 0 else axis for axis in (start, end)))


def _delay(fields: Fields, setting: _Setting) -> nn.Module:
    steps = np.round(np.asarray(fields["delay"]) / setting.dt)
    return _Delay(torch.as_tensor(steps).long())


def _neuron(fields: Fields, setting: _Setting) -> nn.Module:
    """IF, LIF, LI and I; with ``tau_syn`` CubaLIF and CubaLI."""
    r = _tensor(fields["r"])
    leaks = "tau" in fields or "tau_mem" in fields
    rate = torch.zeros_like(r)
    if leaks:
        rate = _rate(fields["tau_mem" if "tau_mem" in fields else "tau"], setting)
    gain = rate * r if leaks else setting.dt * r
    bias = rate * _tensor(fields["v_leak"]) if leaks else torch.zeros_like(r)
    current = None
    if "tau_syn" in fields:
        synapse = _rate(fields["tau_syn"], setting)
        current, gain = 1.0 - synapse, gain * synapse * _tensor(fields["w_in"])
    spiking = "v_threshold" in fields
    threshold = _tensor(fields["v_threshold"]) if spiking else torch.full_like(r, _NEVER)
    back = _tensor(fields["v_reset"]) if "v_reset" in fields else torch.zeros_like(r)
    reset = setting.reset if spiking else "hard"
    if reset == "subtract_next" and bool((rate == 1.0).any()):
        raise ValueError("nothing is left of the membrane a step later, to subtract from")
    made = NIRNeuron(1.0 - rate, gain, bias, threshold, back, reset, setting.strict, current)
    return made if spiking else _Integrator(made)


def _rate(tau: Any, setting: _Setting) -> Tensor:
    seconds = _tensor(tau) * setting.tau_scale
    if bool((seconds < setting.dt).any()):
        raise ValueError(
            f"a time constant of {seconds.min().item():.3g} s is shorter than dt={setting.dt:g} s, "
            "which forward Euler cannot step; give a smaller dt, or tau_in_steps=True for a file "
            "of norse 1.1, which writes them times dt"
        )
    return setting.dt / seconds


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(np.asarray(value), dtype=torch.float64)


def _whole(value: Any) -> Any:
    found = np.asarray(value)
    return int(found) if found.ndim == 0 else tuple(int(one) for one in found)


_KINDS: dict[str, Callable[[Fields, _Setting], nn.Module]] = {
    "Input": _identity, "Output": _identity, "Identity": _identity,
    "Affine": _linear, "Linear": _linear, "Conv1d": _convolution, "Conv2d": _convolution,
    "Scale": lambda fields, setting: _Scaled(_tensor(fields["scale"])),
    "AvgPool2d": _pool, "SumPool2d": _sum_pool, "Flatten": _flatten, "Delay": _delay,
    "Threshold": lambda fields, setting: _Above(_tensor(fields["threshold"])),
    "I": _neuron, "IF": _neuron, "LI": _neuron, "LIF": _neuron, "CubaLI": _neuron,
    "CubaLIF": _neuron,
}  # fmt: skip
