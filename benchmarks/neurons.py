"""Every neuron forward and backward, against SpikingJelly's node where it has one, and our LIF.

Both sides have the same parameters and surrogate, and their spikes are compared before anything is
timed. SpikingJelly's nodes are reset before every sequence, as they must be. Its nodes without a
backward pass (ST-BIF) are left out; those of our neurons that it has not and that run on the scan
are timed beside our LIF alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Claim, Record, backward_step, claim, interleave, spread
from rheobase import neurons as ours
from rheobase.layers import MPBN
from rheobase.surrogate import Rectangular

__all__ = ["SHAPE", "pairs", "training"]

T, CHANNELS = 16, 32
# As many values as in the LIF's own suite: of a tenth of them the call decides, not the neuron.
SHAPE = (T, 32, CHANNELS, 16, 16)

# Rounding may turn a spike where both sides sum in another order.
TURNED = 1e-3


def training(rounds: int) -> list[Record]:
    """Forward and backward with a given gradient, one record a neuron."""
    beside = [_beside_spikingjelly(name, *both, rounds) for name, both in pairs().items()]
    return beside + [_beside_lif(name, make, rounds) for name, make in _ALONE.items()]


# On the scan, and not in SpikingJelly.
_ALONE: dict[str, Callable[[], nn.Module]] = {
    "Diet-SNN": ours.DietLIF,
    "LTMD": ours.LTMD,
    "LSG-LIF": ours.LSGLIF,
    "generalised IF": ours.GIF,
    "IM-LIF": lambda: ours.IMLIF(T),
    "tandem IF": ours.TandemIF,
}


def pairs() -> dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]]:
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
        "DSR-IF": (
            lambda: ours.DSRIF(1.0),
            lambda: neuron.DSRIFNode(T, v_threshold=1.0),
        ),
        "DSR-LIF": (
            lambda: ours.DSRLIF(0.1),
            lambda: neuron.DSRLIFNode(T, v_threshold=0.1),
        ),
        "MPBN, in training": (
            lambda: MPBN(CHANNELS, membrane="normalised", decay_input=False),
            many(neuron.MPBNLIFNode, out_channels=CHANNELS),
        ),
    }


def _cuba(cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Its constructor, alone among them, knows no step mode."""

    def make(step_mode: str, **options: Any) -> nn.Module:
        node = cls(**options)
        node.step_mode = step_mode  # type: ignore[assignment]
        return node

    return make


def _beside_spikingjelly(
    name: str, make: Callable[[], nn.Module], make_node: Callable[[], nn.Module], rounds: int
) -> Record:
    from spikingjelly.activation_based import functional

    torch.manual_seed(0)
    neuron, node = make(), make_node()
    _share_parameters(neuron, node)
    x, g = _given()

    def theirs(x: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(x)
        return spikes

    with torch.no_grad():
        spikes, expected = neuron(x), theirs(x)
    turned = float((spikes != expected).double().mean())
    if turned > TURNED:
        raise AssertionError(f"{name}: {turned:.2%} of the spikes differ; nothing was timed")
    contenders = {
        "rheobase": backward_step(neuron, x, g),
        "SpikingJelly": backward_step(theirs, x, g),
    }
    if name != "LIF":
        contenders["rheobase LIF"] = backward_step(ours.LIF(), x, g)
    times = interleave(contenders, rounds)
    goal = 5.0 if _on_the_scan(neuron) else None
    claims = [claim(times, "SpikingJelly", "rheobase", at_least=goal)]
    if name != "LIF":
        claims.append(_against_lif(times, neuron))
    note = f"firing rate {_rate(expected):.2f}, {turned:.1e} of the spikes differ"
    return _record(name, times, claims, note)


def _beside_lif(name: str, make: Callable[[], nn.Module], rounds: int) -> Record:
    torch.manual_seed(0)
    neuron, (x, g) = make(), _given()
    with torch.no_grad():
        spikes = neuron(x)
    contenders = {
        "rheobase": backward_step(neuron, x, g),
        "rheobase LIF": backward_step(ours.LIF(), x, g),
    }
    times = interleave(contenders, rounds)
    return _record(name, times, [_against_lif(times, neuron)], f"firing rate {_rate(spikes):.2f}")


def _given() -> tuple[Tensor, Tensor]:
    """The input current and the gradient by the spikes."""
    return (1.5 * torch.randn(SHAPE)).requires_grad_(), torch.randn(SHAPE)


# They read the input once more than a scan does: statistics of every step (MPBN in training),
# the attention's mean (IM-LIF), the rate that alone has a gradient (DSR).
_MORE_THAN_A_SCAN = (MPBN, ours.IMLIF, ours.DSRIF)


def _on_the_scan(neuron: nn.Module) -> bool:
    return getattr(neuron, "scanned", False) and not isinstance(neuron, _MORE_THAN_A_SCAN)


def _against_lif(times: dict[str, list[float]], neuron: nn.Module) -> Claim:
    goal = 1.3 if _on_the_scan(neuron) else None
    return claim(times, "rheobase", "rheobase LIF", at_most=goal)


def _rate(spikes: Tensor) -> float:
    return float((spikes != 0.0).double().mean())


def _record(name: str, times: dict[str, list[float]], claims: list[Claim], note: str) -> Record:
    figures = {contender: spread(values) for contender, values in times.items()}
    return Record(f"{name} forward + backward `{list(SHAPE)}`", "ms", figures, claims, [note])


# What both draw at random, by its name on both sides.
_DRAWN = ("alpha", "beta", "gamma", "weight", "bias")


@torch.no_grad()
def _share_parameters(neuron: nn.Module, node: nn.Module) -> None:
    """Give ours what the node drew; all else starts alike."""
    drawn = dict(node.named_parameters())
    for name, parameter in neuron.named_parameters():
        if name in _DRAWN and name in drawn:
            parameter.copy_(drawn[name].view(parameter.shape))
