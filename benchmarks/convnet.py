"""A convolutional network, against the same with ReLU (the dense floor) and SpikingJelly's.

128C3-BN-LIF twice, average pooling, the same again, FC512-LIF, FC10, on images of CIFAR size, T 4.
The floor is the network with ReLU in the neurons' places on T times the images: what a spiking step
would cost if a neuron cost what a ReLU does and nothing were known of time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from benchmarks.harness import Record, claim, interleave, spread
from benchmarks.transformers import wake
from rheobase.layers import repeat
from rheobase.layers.sequential import TimeSequential
from rheobase.measure import firing_rates
from rheobase.neurons import LIF

__all__ = ["build", "frames", "inference", "training"]

STEPS, BATCH, WIDTH, CLASSES = 4, 4, 128, 10
TITLE = f"Conv net (4 × 128C3, FC512), batch {BATCH}, T {STEPS}"


def build(system: str) -> nn.Module:
    """The network of ``rheobase``, ``SpikingJelly`` or, without spikes, ``ReLU``."""
    if system == "rheobase":
        return TimeSequential(*_layers(nn, LIF))
    return _SpikingJelly() if system == "SpikingJelly" else nn.Sequential(*_layers(nn, nn.ReLU))


class _SpikingJelly(nn.Sequential):
    """Its own layers, told to take whole sequences; the state is forgotten before every one."""

    def __init__(self) -> None:
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        def lif() -> nn.Module:
            made: nn.Module = neuron.LIFNode(surrogate_function=surrogate.ATan(alpha=2.0))
            return made

        super().__init__(*_layers(layer, lif))
        functional.set_step_mode(self, "m")
        self._reset = functional.reset_net

    def forward(self, input: Tensor) -> Tensor:
        self._reset(self)
        logits: Tensor = super().forward(input)
        return logits


def _layers(library: Any, neuron: Callable[[], nn.Module]) -> list[nn.Module]:
    made: list[nn.Module] = []
    channels = 3
    for _ in range(2):
        for _ in range(2):
            made += [
                library.Conv2d(channels, WIDTH, 3, padding=1, bias=False),
                library.BatchNorm2d(WIDTH),
                neuron(),
            ]
            channels = WIDTH
        made.append(library.AvgPool2d(2))
    made += [library.Flatten(), library.Linear(WIDTH * 64, 512), neuron()]
    return [*made, library.Linear(512, CLASSES)]


def frames(steps: int, batch: int) -> Tensor:
    """A sequence ``[T, N, 3, 32, 32]`` of one image a sample, as any other lies in memory."""
    torch.manual_seed(1)
    return repeat(torch.randn(batch, 3, 32, 32), steps).contiguous()


def training(rounds: int) -> list[Record]:
    """Forward, cross entropy of the mean over T, backward, AdamW."""
    networks = _networks()
    return [_training(networks, low, rounds) for low in (False, True)]


def inference(rounds: int) -> list[Record]:
    """Evaluation mode; rheobase also as `rheobase.optimize` makes the network, twice."""
    networks = {name: net.eval() for name, net in _networks().items()}
    x = frames(STEPS, BATCH)
    image = repeat(x[0], STEPS)
    fast = rheobase.optimize(networks["rheobase"], image)
    bytewise = rheobase.optimize(networks["rheobase"], image, dtypes=(torch.float32, torch.int8))
    with torch.inference_mode():
        calls: dict[str, Callable[[], object]] = {
            "rheobase": partial(networks["rheobase"], x),
            "rheobase, optimised": partial(fast, image),
            "rheobase, 8-bit weights": partial(bytewise, image),
            "ReLU": partial(networks["ReLU"], x.flatten(0, 1)),
            "SpikingJelly": partial(networks["SpikingJelly"], x),
        }
        times = interleave(calls, rounds)
    rates = firing_rates(networks["rheobase"], image).values()
    return [
        Record(
            f"{TITLE}, inference",
            "ms",
            {name: spread(values) for name, values in times.items()},
            [
                claim(times, "rheobase", "ReLU"),
                claim(times, "SpikingJelly", "rheobase"),
                claim(times, "SpikingJelly", "rheobase, optimised"),
                claim(times, "SpikingJelly", "rheobase, 8-bit weights", at_least=9.0),
            ],
            [
                "firing rates by layer: " + ", ".join(f"{rate:.2f}" for rate in rates),
                _apart(networks["rheobase"], bytewise, image),
                *bytewise.choices,
            ],
        )
    ]


def _apart(net: nn.Module, bytewise: nn.Module, x: Tensor) -> str:
    """How far weights of 8 bits, and bfloat16 beside them, are from float32."""
    low = copy.deepcopy(net).to(torch.bfloat16)
    with torch.no_grad():
        y = net(x).mean(0)
        others = bytewise(x).mean(0), low(x.to(torch.bfloat16)).float().mean(0)
    eight, half = (f"{(other - y).norm() / y.norm():.0%}" for other in others)
    return (
        f"mean outputs differ by {eight} of their size with 8-bit weights, by {half} in bfloat16: "
        "the weights are drawn, and such a network amplifies every rounding"
    )


def _training(networks: dict[str, nn.Module], low: bool, rounds: int) -> Record:
    """In float32 as everything comes, or in bfloat16 with channels last for all."""
    x = frames(STEPS, BATCH)
    labels = torch.randint(CLASSES, (BATCH,))
    image = x[0]
    if low:
        networks = {n: net.to(memory_format=torch.channels_last) for n, net in networks.items()}  # type: ignore[call-overload]
        image = image.contiguous(memory_format=torch.channels_last)
        folded = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = folded.unflatten(0, (STEPS, BATCH))
    steps = {
        "rheobase": _step(networks["rheobase"], x, labels, low),
        "rheobase, image repeated": _step(
            copy.deepcopy(networks["rheobase"]), repeat(image, STEPS), labels, low
        ),
        "ReLU": _step(networks["ReLU"], x.flatten(0, 1), labels.repeat(STEPS), low),
        "SpikingJelly": _step(networks["SpikingJelly"], x, labels, low),
    }
    times = interleave(steps, rounds)
    return Record(
        f"{TITLE}, training step, " + ("bfloat16, channels last" if low else "float32"),
        "ms",
        {name: spread(values) for name, values in times.items()},
        [
            claim(times, "rheobase", "ReLU", at_most=1.07),
            claim(times, "rheobase, image repeated", "ReLU", at_most=0.95),
            claim(times, "SpikingJelly", "rheobase", at_least=2.0 if low else 1.35),
            # As it comes out of the box.
            claim(times, "SpikingJelly", "rheobase, image repeated", at_least=None if low else 3.5),
        ],
    )


def _step(net: nn.Module, x: Tensor, labels: Tensor, low: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext():
            logits = net(x).float()
        F.cross_entropy(logits.mean(0) if logits.dim() == 3 else logits, labels).backward()
        optimizer.step()

    return run


def _networks() -> dict[str, nn.Module]:
    """All with the same weights; the spiking ones are the same function, which is checked."""
    torch.manual_seed(0)
    networks = {name: build(name) for name in ("rheobase", "ReLU", "SpikingJelly")}
    wake(networks["rheobase"], lambda: networks["rheobase"](frames(STEPS, 16)))
    with torch.no_grad():  # no norm behind it: its neurons would stay silent
        networks["rheobase"].get_submodule("15").weight.mul_(8.0)
    for name in ("ReLU", "SpikingJelly"):
        networks[name].load_state_dict(networks["rheobase"].state_dict())
    ours, theirs = (copy.deepcopy(networks[n]).double() for n in ("rheobase", "SpikingJelly"))
    x = frames(STEPS, 2).double()
    outputs = ours(x), theirs(x)
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    for logits in outputs:
        logits.square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9)
    return networks
