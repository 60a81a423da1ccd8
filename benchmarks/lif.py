"""One LIF layer over a sequence, against SpikingJelly, torch.compile, snnTorch and plain copies.

Every contender computes tau 2, threshold 1, hard reset to 0, input divided by tau, arctangent
surrogate (alpha 2). Spikes, and gradients where they are the same quantity, are compared before
anything is timed.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Claim, Record, backward_step, claim, interleave, spread
from rheobase.neurons import LIF

__all__ = ["inference", "sizes", "training"]

SHAPES = ((16, 64, 4096), (4, 1, 2**20))
# Steps and neurons from what the first cache holds to a gigabyte.
SIZES = [(steps, 1, neurons) for steps in (4, 16, 64) for neurons in (2**14, 2**18, 2**20)]
_L2 = 1 << 20

Layer = Callable[[Tensor], Tensor]


def training(rounds: int) -> list[Record]:
    """Forward and backward with a given gradient."""
    return [_training(shape, rounds) for shape in SHAPES]


def inference(rounds: int) -> list[Record]:
    """Forward alone, without autograd."""
    return [_inference(shape, rounds) for shape in SHAPES]


def sizes(rounds: int) -> list[Record]:
    """Forward and backward of many sizes against moving the same bytes."""
    records = []
    for shape in SIZES:
        x = _input(shape).requires_grad_()
        g = torch.randn(shape)
        contenders = {
            "rheobase": backward_step(LIF(), x, g),
            "same bytes": _bytes_training(x.detach(), g),
        }
        times = interleave(contenders, rounds)
        beyond = x.numel() * x.element_size() > _L2
        claims = [claim(times, "rheobase", "same bytes", at_most=1 / 0.6 if beyond else None)]
        records.append(_record(f"LIF forward + backward `{list(shape)}`, size", times, claims, []))
    return records


def _training(shape: tuple[int, ...], rounds: int) -> Record:
    x = _input(shape).requires_grad_()
    g = torch.randn(shape)
    layers: dict[str, Layer] = {
        "rheobase": LIF(),
        "SpikingJelly": spikingjelly_lif(),
        "snnTorch": snntorch_lif(),
    }
    notes = ["snnTorch cuts the gradient through the reset; its spikes are the same"]
    if _has_compiler():
        layers["torch.compile"], note = _compiled(x, g)
        notes.append(note)
    else:
        notes.append("torch.compile left out: no C++ compiler here (set CXX or install g++)")
    rate = _assert_same_spikes(layers, x.detach())
    notes.append(f"firing rate {rate:.2f}")
    _assert_same_gradients({n: f for n, f in layers.items() if n != "snnTorch"}, x, g)

    contenders = {name: backward_step(layer, x, g) for name, layer in layers.items()}
    contenders["same bytes"] = _bytes_training(x.detach(), g)
    times = interleave(contenders, rounds)
    claims = [claim(times, "SpikingJelly", "rheobase", at_least=5.0)]
    if "torch.compile" in times:
        claims.append(claim(times, "rheobase", "torch.compile", at_most=1.0))
    claims.append(claim(times, "rheobase", "same bytes", at_most=2.0))
    claims.append(claim(times, "snnTorch", "rheobase"))
    return _record(f"LIF forward + backward `{list(shape)}`", times, claims, notes)


def _inference(shape: tuple[int, ...], rounds: int) -> Record:
    x = _input(shape)
    layers: dict[str, Layer] = {
        "rheobase": LIF(),
        "SpikingJelly": spikingjelly_lif(),
        "snnTorch": snntorch_lif(),
    }
    with torch.no_grad():
        _assert_same_spikes(layers, x)
        contenders: dict[str, Callable[[], Any]] = {
            name: partial(layer, x) for name, layer in layers.items()
        }
        out = torch.empty_like(x)
        contenders["copy"] = partial(out.copy_, x)
        times = interleave(contenders, rounds)
    claims = [
        claim(times, "SpikingJelly", "rheobase", at_least=8.0),
        claim(times, "rheobase", "copy", at_most=2.0),
        claim(times, "snnTorch", "rheobase"),
    ]
    return _record(f"LIF forward only `{list(shape)}`", times, claims, [])


def _record(
    work: str, times: dict[str, list[float]], claims: list[Claim], notes: list[str]
) -> Record:
    return Record(work, "ms", {n: spread(v) for n, v in times.items()}, claims, notes)


def _input(shape: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    return 2.0 * torch.randn(shape)


def _bytes_training(x: Tensor, g: Tensor) -> Callable[[], None]:
    """The 20 bytes an element-step cannot avoid: read x, write s; read g and x, write gx."""
    s, gx = torch.empty_like(x), torch.empty_like(x)

    def run() -> None:
        s.copy_(x)
        torch.add(g, x, out=gx)

    return run


def spikingjelly_lif() -> Layer:
    """SpikingJelly's own multi-step node, its state reset before every sequence as it must be."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(x)
        return spikes

    return run


def snntorch_lif() -> Layer:
    """snnTorch's Leaky in the loop its users write (over `unbind`, its fastest form)."""
    import snntorch

    node = snntorch.Leaky(
        beta=0.5, spike_grad=snntorch.surrogate.atan(alpha=2.0), reset_mechanism="zero"
    )

    def run(x: Tensor) -> Tensor:
        membrane = torch.zeros_like(x[0])
        spikes = []
        for x_t in (0.5 * x).unbind(0):
            s, membrane = node(x_t, membrane)
            spikes.append(s)
        return torch.stack(spikes)

    return run


class _ArctanSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grads[0] / (1.0 + (math.pi * z).square())


def plain_lif(x: Tensor) -> Tensor:
    """The loop that a user hands to torch.compile."""
    v = torch.zeros_like(x[0])
    spikes = []
    for x_t in x.unbind(0):
        h = v + (x_t - v) / 2.0
        s = _ArctanSpike.apply(h - 1.0)
        v = h * (1.0 - s)
        spikes.append(s)
    return torch.stack(spikes)


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _compiled(x: Tensor, g: Tensor) -> tuple[Layer, str]:
    compiled: Layer = torch.compile(plain_lif, fullgraph=True, dynamic=False)
    start = time.perf_counter()
    compiled(x).backward(g)
    seconds = time.perf_counter() - start
    return compiled, f"torch.compile took {seconds:.1f} s before its first result (not in the time)"


def _assert_same_spikes(layers: dict[str, Layer], x: Tensor) -> float:
    expected = layers["SpikingJelly"](x)
    for name, layer in layers.items():
        if not torch.equal(layer(x), expected):
            raise AssertionError(f"{name} does not give SpikingJelly's spikes; nothing was timed")
    return float(expected.mean())


def _assert_same_gradients(layers: dict[str, Layer], x: Tensor, g: Tensor) -> None:
    expected = _gradient(layers["SpikingJelly"], x, g)
    for name, layer in layers.items():
        torch.testing.assert_close(
            _gradient(layer, x, g),
            expected,
            rtol=1e-4,
            atol=1e-5,
            msg=partial("{}: {}".format, name),
        )


def _gradient(layer: Layer, x: Tensor, g: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(layer(x), x, g)
    return gradient
