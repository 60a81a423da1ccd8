"""A recurrent network on sequences the size of Spiking Heidelberg Digits: 700-128-20, T 100.

The same three layers in all: the input's product over all T steps at once (also for those whose
users write it step by step), 128 recurrent LIF neurons (tau 10, threshold 1, hard reset to 0, input
added whole, arctangent surrogate), the mean of 20 outputs over T. A tenth of the input is active.
rheobase takes its first product event by event (`EventLinear`); "dense input" is rheobase with
`nn.Linear` there, as the peers have. Spikes, and gradients where they are the same quantity, are
compared in float64 before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Record, claim, interleave, spread
from rheobase.layers import EventLinear, Recurrent
from rheobase.neurons import LIF

__all__ = ["inference", "training"]

BATCHES = (32, 64, 256)
_T, _INPUTS, _HIDDEN, _CLASSES, _DENSITY = 100, 700, 128, 20, 0.1
_TAU = 10.0
_SYSTEMS = ("rheobase", "dense input", "SpikingJelly", "snnTorch", "Norse")


class Network(nn.Module):
    """Input layer, recurrent layer of one system, readout; returns the mean over T."""

    def __init__(self, system: str) -> None:
        super().__init__()
        first = EventLinear if system == "rheobase" else nn.Linear
        self.first = first(_INPUTS, _HIDDEN)
        self.recurrent = _LAYERS[system]()
        self.last = nn.Linear(_HIDDEN, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.hidden(x)).mean(0)
        return logits

    def hidden(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.recurrent(self.first(x))
        return spikes


class SpikingJelly(nn.Module):
    """SpikingJelly's node in the loop its users write over recurrent layers.

    Its `LinearRecurrentContainer` computes the same with a wider product, so it is slower.
    """

    def __init__(self) -> None:
        from spikingjelly.activation_based import neuron, surrogate

        super().__init__()
        self.feedback = nn.Linear(_HIDDEN, _HIDDEN, bias=False)
        self.node = neuron.LIFNode(
            tau=_TAU, decay_input=False, surrogate_function=surrogate.ATan(alpha=2.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        self.node.reset()
        spikes = [torch.zeros_like(x[0])]
        for x_t in x.unbind(0):
            spikes.append(self.node(x_t + self.feedback(spikes[-1])))
        return torch.stack(spikes[1:])


class SnnTorch(nn.Module):
    """snnTorch's RLeaky in the loop its users write."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.node = snntorch.RLeaky(
            beta=1.0 - 1.0 / _TAU, linear_features=_HIDDEN, reset_mechanism="zero",
            reset_delay=False, spike_grad=snntorch.surrogate.atan(alpha=2.0),
        )  # fmt: skip
        self.node.recurrent.bias = None
        self.feedback = self.node.recurrent

    def forward(self, x: Tensor) -> Tensor:
        s = membrane = torch.zeros_like(x[0])
        spikes = []
        for x_t in x.unbind(0):
            s, membrane = self.node(x_t, s, membrane)
            s = s.to(x.dtype)  # of a float64 input, too, its spikes are float32
            spikes.append(s)
        return torch.stack(spikes)


class Norse(nn.Module):
    """Norse's LIF in the loop that its users write over recurrent layers.

    Its recurrent cells delay their input by a synapse; this neuron does not, so it is faster. It
    divides its input by tau, for which its weights are as much larger.
    """

    def __init__(self) -> None:
        from norse.torch import LIFBoxCell
        from norse.torch.functional.lif_box import LIFBoxParameters

        super().__init__()
        self.feedback = nn.Linear(_HIDDEN, _HIDDEN, bias=False)
        steps_a_second = torch.tensor(1000.0 / _TAU)
        self.node = LIFBoxCell(LIFBoxParameters(tau_mem_inv=steps_a_second), dt=0.001)

    def forward(self, x: Tensor) -> Tensor:
        spikes, state = [torch.zeros_like(x[0])], None
        for x_t in x.unbind(0):
            s, state = self.node(x_t + self.feedback(spikes[-1]), state)
            spikes.append(s)
        return torch.stack(spikes[1:])


def _ours() -> nn.Module:
    return Recurrent(_HIDDEN, LIF(tau=_TAU, decay_input=False))


_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rheobase": _ours,
    "dense input": _ours,
    "SpikingJelly": SpikingJelly,
    "snnTorch": SnnTorch,
    "Norse": Norse,
}


def training(rounds: int) -> list[Record]:
    """Forward, cross entropy, backward, Adam."""
    return [_training(batch, rounds) for batch in BATCHES]


def inference(rounds: int) -> list[Record]:
    """Forward alone, under `torch.inference_mode`."""
    return [_inference(batch, rounds) for batch in BATCHES]


def _training(batch: int, rounds: int) -> Record:
    networks = _networks()
    rate = _assert_same_function(networks)
    x, labels = _data(batch)
    steps = {name: _step(net, x, labels) for name, net in networks.items()}
    times = interleave(steps, rounds)
    return _record("training step", batch, times, 3.5, [
        f"firing rate {rate:.2f}, input density {_DENSITY}",
        "snnTorch cuts the gradient through the reset, Norse has another surrogate; "
        "their spikes are the same",
    ])  # fmt: skip


def _inference(batch: int, rounds: int) -> Record:
    networks = _networks()
    _assert_same_function(networks)
    x, _ = _data(batch)
    with torch.inference_mode():
        times = interleave({name: partial(net, x) for name, net in networks.items()}, rounds)
    return _record("inference", batch, times, None, [])


def _record(
    work: str, batch: int, times: dict[str, list[float]], goal: float | None, notes: list[str]
) -> Record:
    size = f"{_INPUTS}-{_HIDDEN} recurrent-{_CLASSES}, T {_T}"
    return Record(
        f"Recurrent LIF network ({size}) {work}, batch {batch}",
        "ms",
        {name: spread(values) for name, values in times.items()},
        [
            *(claim(times, name, "rheobase", at_least=goal) for name in _SYSTEMS[2:]),
            claim(times, "dense input", "rheobase"),
        ],
        notes,
    )


def _step(net: Network, x: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()

    return run


def _data(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = (torch.rand(_T, batch, _INPUTS) < _DENSITY).float()
    return x, torch.randint(_CLASSES, (batch,))


def _networks() -> dict[str, Network]:
    """All networks with the same weights, as large as makes every tenth neuron fire."""
    networks = {name: Network(name) for name in _SYSTEMS}
    torch.manual_seed(0)
    weights = {
        "first.weight": 0.08 * torch.randn(_HIDDEN, _INPUTS),
        "recurrent.feedback.weight": torch.randn(_HIDDEN, _HIDDEN) / _HIDDEN**0.5,
    }
    for net in networks.values():
        own: dict[str, Any] = dict(net.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
            for name in ("last.weight", "first.bias", "last.bias"):
                own[name].copy_(cast(Network, networks["rheobase"]).get_parameter(name))
    with torch.no_grad():
        for name in ("first.weight", "first.bias", "recurrent.feedback.weight"):
            networks["Norse"].get_parameter(name).mul_(_TAU)
    return networks


def _assert_same_function(networks: dict[str, Network]) -> float:
    """Spikes in float64 equal, gradients to rounding; the firing rate."""
    x, labels = _data(4)
    hidden, gradients = {}, {}
    for name, net in networks.items():
        net.double()
        hidden[name] = net.hidden(x.double()).detach()
        F.cross_entropy(net(x.double()), labels).backward()
        own: dict[str, Any] = dict(net.named_parameters(remove_duplicate=False))
        gradients[name] = [own[key].grad for key in ("first.weight", "recurrent.feedback.weight")]
        net.float().zero_grad()
    for name in _SYSTEMS[1:]:
        if not torch.equal(hidden["rheobase"], hidden[name]):
            raise AssertionError(f"{name} gives other spikes than rheobase; nothing was timed")
    torch.testing.assert_close(gradients["rheobase"], gradients["SpikingJelly"])
    return float(hidden["rheobase"].mean())
