"""``rheobase deploy``: whether a network fits a chip, how, and what it would cost there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from rheobase._text import columns, si
from rheobase.deploy import (
    CHIPS,
    Chip,
    Mapping,
    answers_kept,
    circuit_of,
    estimate,
    find_chip,
    map_circuit,
    round_weights,
)
from rheobase.experiments.measured import UNTRAINED, load_measured

__all__ = ["chips_page", "deploy_page"]

_ROUNDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def chips_page() -> str:
    """The chips there are: their sizes and where these are from."""
    rows = [
        (
            chip.id, f"{chip.cores:,}", f"{chip.neurons:,}",
            f"{chip.inputs:,}" if chip.inputs else "-", str(chip.synapses.weight_bits),
            f"{si(chip.prices.synapse.value * 1e-12)}J" if chip.prices.synapse else "-",
            chip.paper,
        )
        for chip in CHIPS.values()
    ]  # fmt: skip
    head = ("chip", "cores", "neurons each", "inputs each", "weight bits", "a synaptic event", "")
    return columns(rows, head)


def deploy_page(source: str, chip: str, settings: Sequence[str] = (), images: int = 20) -> str:
    """Cores, neurons, memory and obstacles of a network on a chip; energy and latency there.

    Args:
        source: a run, a model's file or a registered model (`load_measured`).
        chip: an id of `rheobase.deploy.CHIPS`.
        settings: changes of its settings.
        images: test images that events are averaged over.

    Raises:
        ValueError: as `load_measured` and `circuit_of`; no such chip.
    """
    target = find_chip(chip)
    net, x, trained = load_measured(source, settings, images)
    mapping = map_circuit(circuit_of(net, x), target)
    head = f"{source} on {target.name} ({target.paper}), T = {mapping.circuit.steps}"
    parts = [
        head if trained else f"{head} ({UNTRAINED})", "\n".join(_verdict(mapping)),
        _populations(mapping), "\n".join(_costs(mapping)),
        _answers(net, x, mapping) if trained else "", "\n".join(_told(target)),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _verdict(mapping: Mapping) -> Iterator[str]:
    chip = mapping.chip
    if mapping.fits:
        share = mapping.cores / chip.cores
        yield f"It fits: {mapping.cores:,} of {chip.cores:,} cores ({share:.1%})."
    elif not mapping.obstacles:
        yield (
            f"It does not fit one: it takes {mapping.chips:,}, with {mapping.cores:,} cores of "
            f"{chip.cores:,} each."
        )
    else:
        yield "It does not fit:"
        yield from (f"  {obstacle}" for obstacle in mapping.obstacles)
        if mapping.placed:
            yield f"What can be placed takes {mapping.cores:,} cores of {chip.cores:,}."
    for one in mapping.circuit.populations:
        if one.kind == "encoder":
            yield (
                f"{one.name} stays beside the chip: it makes {one.spikes:,.0f} spikes of the "
                "input's values."
            )


def _populations(mapping: Mapping) -> str:
    if not mapping.placed:
        return ""
    rows = [
        (
            one.population.name, str(one.population.kind), f"{one.population.neurons:,}",
            f"{one.population.fan_in:,}", f"{one.population.synapses:,}", f"{one.cores:,}",
            " x ".join(map(str, one.tile)), f"{one.inputs:,}",
            f"{si(one.bits / 8)}B" if one.bits else "-", f"{one.copies:,}" if one.copies else "-",
            one.limit,
        )
        for one in mapping.placed
    ]  # fmt: skip
    rows.append(
        ("all", "", f"{mapping.neurons:,}", "", f"{mapping.synapses:,}", f"{mapping.cores:,}",
         "", "", f"{si(mapping.bits / 8)}B" if mapping.bits else "-", "", "")
    )  # fmt: skip
    head = (
        "neurons behind", "kind", "neurons", "fan-in", "synapses", "cores", "a core's", "inputs",
        "memory", "copies", "limited by",
    )  # fmt: skip
    return columns(rows, head)


def _costs(mapping: Mapping) -> Iterator[str]:
    if not mapping.placed:
        return
    found = estimate(mapping)
    what = "what is placed" if mapping.obstacles else "an image"
    yield f"{found.synaptic_events:,.0f} synaptic events and {found.spikes:,.0f} spikes of {what}"
    rows = [
        (one.events, f"{one.count:,.4g}", f"{si(one.pj * 1e-12)}J", f"{si(one.joules)}J")
        for one in found.charges
    ]
    if rows:
        yield columns(rows, ("charged", "number", "each", "energy"))
    if found.missing:
        yield f"not charged, for want of a published figure: {', '.join(found.missing)}"
    told = {
        "energy": (found.energy, "J"),
        "latency": (found.latency, "s"),
        "power": (found.power, "W"),
        "energy-delay product": (found.energy_delay, "J s"),
        "energy per spike": (found.energy_per_spike, "J"),
        "throughput": (found.throughput, "spikes/s"),
    }
    known = ((name, f"{si(value)}{unit}") for name, (value, unit) in told.items() if value)
    yield columns(known, ("altogether", ""))
    if found.step is not None:
        yield f"{found.steps} steps of {si(found.step)}s: {found.step_source}"
    else:
        yield f"no latency: {found.step_source}"
    for figure in dict.fromkeys(one.source for one in found.charges):
        charged = ", ".join(one.events for one in found.charges if one.source == figure)
        yield f"{charged}: {figure}"


def _answers(net: nn.Module, x: Tensor, mapping: Mapping) -> str:
    """What the chip's weights do to the network's answers."""
    modules = dict(net.named_modules())
    layers = [name for name in mapping.layers if isinstance(modules.get(name), _ROUNDED)]
    if not layers:
        return ""
    bits = mapping.chip.synapses.weight_bits
    kept = answers_kept(net, round_weights(net, x, bits, layers), x)
    return (
        f"with the weights of {len(layers)} layers rounded to {bits} bits, one step for each "
        f"layer, {kept:.0%} of the answers stay"
    )


def _told(chip: Chip) -> Iterator[str]:
    yield f"weights: {chip.synapses.statement}"
    yield f"sizes: {chip.sources}"
    if chip.notes:
        yield f"note: {chip.notes}"
