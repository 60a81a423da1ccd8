"""Latency of one stream: a step at a time, batch 1, a tenth of every layer's input active.

The network as it is against what `rheobase.optimize` makes of it for such an input. Both stream the
same events; outputs are compared, in float64, before anything is timed. Norms are shifted until
every layer fires at a rate of 10 %.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

import rheobase
from benchmarks.harness import Record, claim, interleave, spread
from rheobase.layers import over_time
from rheobase.measure import firing_rates
from rheobase.neurons import LIF

__all__ = ["latency"]

_DENSITY, _STEPS = 0.1, 20


class Stream(nn.Module):
    """Layers in order, called on ``[t, 1, ...]``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(x, *self.layers)


def latency(rounds: int) -> list[Record]:
    """Milliseconds a step, over a stream of 20 steps."""
    conv = Stream(
        *_conv(2, 128), *_conv(128, 128), nn.MaxPool2d(2), *_conv(128, 128), *_conv(128, 128),
        nn.MaxPool2d(2), nn.Flatten(), *_linear(128 * 64, 512), nn.Linear(512, 10),
    )  # fmt: skip
    mlp = Stream(*_linear(1024, 1024), *_linear(1024, 1024), nn.Linear(1024, 10))
    return [
        _latency("conv net 128C3×2, pool, ×2, pool, FC512, 32×32", conv, (2, 32, 32), rounds),
        _latency("MLP 1024-1024-1024-10", mlp, (1024,), rounds),
    ]


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), LIF()]


def _linear(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), LIF()]


def _latency(work: str, net: Stream, shape: tuple[int, ...], rounds: int) -> Record:
    torch.manual_seed(0)
    x = (torch.rand(_STEPS, 1, *shape) < _DENSITY).float()
    if len(shape) == 3:
        x = x.squeeze(1).contiguous(memory_format=torch.channels_last).unsqueeze(1)
    rates = _quieten(net, x)
    fast = rheobase.optimize(net, x, stream=True)
    bytewise = rheobase.optimize(net, x, stream=True, dtypes=(torch.float32, torch.int8))
    named = {"dense": net, "optimised": fast, "8-bit weights": bytewise}
    steps = {name: _steps(module, x) for name, module in named.items()}
    exact = [_steps(copy.deepcopy(module).double(), x.double()) for module in (net, fast.net)]
    torch.testing.assert_close(*(torch.cat(step()) for step in exact), rtol=1e-9, atol=1e-9)
    times = interleave(steps, rounds)
    per_step = {name: [t / _STEPS for t in values] for name, values in times.items()}
    return Record(
        f"One stream, batch 1, a step at a time: {work}",
        "ms",
        {name: spread(values) for name, values in per_step.items()},
        [
            claim(per_step, "dense", "optimised", at_least=2.0),
            claim(per_step, "dense", "8-bit weights"),
        ],
        [
            f"firing rates {', '.join(f'{rate:.2f}' for rate in rates)}",
            *fast.choices,
            *bytewise.choices,
        ],
    )


def _steps(net: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        with torch.no_grad(), rheobase.streaming(net):
            return [net(step.unsqueeze(0)) for step in x.unbind(0)]

    return run


def _quieten(net: Stream, x: Tensor) -> list[float]:
    """Shift each norm until the neuron behind it fires at the wanted rate; the rates."""
    layers = list(net.layers)
    for number, norm in enumerate(layers):
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        part = Stream(*layers[: number + 2])
        norm.momentum = 1.0
        with torch.no_grad():
            part.eval()
            norm.train()
            part(x)  # statistics of what the layers before it send
            norm.eval()
            low, high = -5.0, 5.0
            for _ in range(12):
                middle = (low + high) / 2.0
                nn.init.constant_(norm.bias, middle)
                rate = list(firing_rates(part, x).values())[-1]
                low, high = (middle, high) if rate < _DENSITY else (low, middle)
    return list(firing_rates(net.eval(), x).values())
