"""Every neuron that SpikingJelly has too, forward and backward, against its node and our LIF.

Both sides have the same parameters and surrogate, and their spikes are compared before anything is
timed. SpikingJelly's nodes are reset before every sequence, as they must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Record, claim, interleave, spread
from rheobase import neurons as ours
from rheobase.surrogate import Rectangular

__all__ = ["training"]

T, CHANNELS = 16, 32
SHAPE = (T, 4, CHANNELS, 16, 16)

# Rounding may turn a spike where both sides sum in another order.
TURNED = 1e-3


def training(rounds: int) -> list[Record]:
    """Forward and backward with a given gradient, one record a neuron."""
    return [_training(name, rounds) for name in _pairs()]


def _pairs() -> dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]]:
    """Our neuron and SpikingJelly's node, by name."""
    from spikingjelly.activation_based import neuron, surrogate

    def many(cls: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
        options.setdefault("surrogate_function", surrogate.ATan(alpha=2.0))
        return lambda: cls(step_mode="m", **options)

    rectangle = surrogate.Rect(alpha=1.0)
    return {
        "IF": (ours.IF, many(neuron.IFNode)),
        "LIF": (ours.LIF, many(neuron.LIFNode)),
        "PLIF": (ours.PLIF, many(neuron.ParametricLIFNode)),
        "KLIF": (ours.KLIF, many(neuron.KLIFNode)),
        "CLIF": (
            lambda: ours.CLIF(surrogate=Rectangular()),
            many(neuron.ComplementaryLIFNode, surrogate_function=rectangle),
        ),
        "CUBA-LIF": (
            lambda: ours.CUBALIF(v_threshold=0.5, surrogate=Rectangular()),
            many(_cuba(neuron.CUBALIFNode), surrogate_function=rectangle),
        ),
        "integer LIF": (
            lambda: ours.ILIF(detach_reset=False),
            many(neuron.ILIFNode, surrogate_function=surrogate.MultiLevelSpikeCount(4)),
        ),
        "GLIF": (
            lambda: ours.GLIF(T, CHANNELS, strict=False, surrogate=Rectangular()),
            many(neuron.GatedLIFNode, T=T, inplane=CHANNELS, surrogate_function=rectangle),
        ),
        "ternary IF": (ours.TernaryIF, many(neuron.TernaryIFNode)),
        "ternary LIF": (ours.TernaryLIF, many(neuron.TernaryLIFNode)),
        "QIF": (lambda: ours.QIF(v_reset=-0.1), many(neuron.QIFNode)),
        "EIF": (lambda: ours.EIF(v_reset=-0.1), many(neuron.EIFNode)),
        "adaptive QIF": (ours.AdaptiveQIF, many(neuron.IzhikevichNode)),
        "resonate-and-fire": (ours.RAF, many(neuron.RAFNode)),
        "PSN": (lambda: ours.PSN(T), lambda: neuron.PSN(T, surrogate.ATan(alpha=2.0))),
        "masked PSN": (
            lambda: ours.MaskedPSN(T, 4, masking=0.0),
            many(neuron.MaskedPSN, k=4, T=T),
        ),
        "sliding PSN": (lambda: ours.SlidingPSN(4), many(neuron.SlidingPSN, k=4)),
    }


def _cuba(cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Its constructor, alone among them, knows no step mode."""

    def make(step_mode: str, **options: Any) -> nn.Module:
        node = cls(**options)
        node.step_mode = step_mode  # type: ignore[assignment]
        return node

    return make


def _training(name: str, rounds: int) -> Record:
    from spikingjelly.activation_based import functional

    torch.manual_seed(0)
    neuron, node = (make() for make in _pairs()[name])
    _share_parameters(neuron, node)
    x = (1.5 * torch.randn(SHAPE)).requires_grad_()
    g = torch.randn(SHAPE)

    def theirs(x: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(x)
        return spikes

    with torch.no_grad():
        spikes, expected = neuron(x), theirs(x)
    turned = float((spikes != expected).double().mean())
    if turned > TURNED:
        raise AssertionError(f"{name}: {turned:.2%} of the spikes differ; nothing was timed")

    def step(layer: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            x.grad = None
            layer(x).backward(g)

        return run

    contenders = {"rheobase": step(neuron), "SpikingJelly": step(theirs)}
    if name != "LIF":
        contenders["rheobase LIF"] = step(ours.LIF())
    times = interleave(contenders, rounds)
    scanned = getattr(neuron, "scanned", False)
    claims = [claim(times, "SpikingJelly", "rheobase", at_least=5.0 if scanned else None)]
    if name != "LIF":
        goal = 1.3 if scanned else None
        claims.append(claim(times, "rheobase", "rheobase LIF", at_most=goal))
    notes = [f"firing rate {float(expected.abs().mean()):.2f}, {turned:.1e} of the spikes differ"]
    figures = {contender: spread(values) for contender, values in times.items()}
    return Record(f"{name} forward + backward `{list(SHAPE)}`", "ms", figures, claims, notes)


# What both draw at random, by its name on both sides.
_DRAWN = ("alpha", "beta", "gamma", "weight", "bias")


@torch.no_grad()
def _share_parameters(neuron: nn.Module, node: nn.Module) -> None:
    """Give ours what the node drew; all else starts alike."""
    drawn = dict(node.named_parameters())
    for name, parameter in neuron.named_parameters():
        if name in _DRAWN and name in drawn:
            parameter.copy_(drawn[name].view(parameter.shape))
