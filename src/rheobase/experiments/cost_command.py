"""``rheobase cost``: one page of what an inference of a network costs, on real input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rheobase._text import columns, si
from rheobase.experiments.measured import UNTRAINED, load_measured
from rheobase.measure import (
    CONVENTIONS,
    Cost,
    break_even_rate,
    cost,
    energy_delay_product,
    energy_per_spike,
    latency_energy,
    power_per_inference,
    spiking_throughput,
    synaptic_memory,
)

__all__ = ["cost_page"]

_DENSE, _WITH_MEMORY = "32-bit floating point", "32-bit floating point, memory included"
_LEMAIRE = (
    "32-bit integers, addresses, and SRAM buffers of the layers' sizes (Lemaire et al. 2022, arXiv "
    "2210.13107); without products of activations"
)


def cost_page(source: str, settings: Sequence[str] = (), images: int = 20) -> str:
    """Operations, energy under every convention, latency, and what an ordinary network would cost.

    Args:
        source: a run, a model's file or a registered model (`load_measured`).
        settings: changes of its settings.
        images: test images that the counts are averaged over.

    Raises:
        ValueError: as `load_measured`; NotImplementedError: as `rheobase.measure.cost`.
    """
    net, x, trained = load_measured(source, settings, images)
    found = cost(net, x)
    spiking = [_energies(found), _break_even(found)] if found.counts.neurons else []
    sections = [_layers(found), *spiking, _twins(found), _metrics(found)]
    head = f"{source}, one of {found.counts.images} images, T = {found.counts.steps}"
    return "\n\n".join([head if trained else f"{head} ({UNTRAINED})", *sections])


def _layers(found: Cost) -> str:
    rows = [
        (
            layer.name, layer.spiking.values, f"{layer.spiking.rate:.1%}", f"{layer.macs:,}",
            str(layer.steps), f"{layer.sops:,.0f}", f"{layer.events:,.0f}",
            f"{layer.connections.synapses:,}" if layer.connections else "-",
        )
        for layer in found.counts.layers
    ]  # fmt: skip
    head = ("layer", "input", "rate", "MACs a step", "steps", "SOPs", "without padding", "synapses")
    return columns(rows, head)


def _energies(found: Cost) -> str:
    rows, told = [], []
    for name, one in found.energies.items():
        if name == "ann":
            continue
        with_memory = one.convention.pj_per_byte > 0
        twin = found.twin[_WITH_MEMORY if with_memory else _DENSE]
        memory = f"{si(one.memory_pj * 1e-12)}J" if with_memory else "-"
        share = f"{one.pj / twin:.0%}"
        rows.append((name, si(one.macs), si(one.acs), memory, f"{si(one.pj * 1e-12)}J", share))
        told.append(f"{name}: {one.convention.statement} ({one.convention.constants})")
    other = found.lemaire
    memory, energy = (f"{si(pj * 1e-12)}J" for pj in (other.memory_pj, other.pj))
    rows.append(("lemaire", "", "", memory, energy, "-"))
    told.append(f"lemaire: {_LEMAIRE}")
    head = ("convention", "MAC", "AC", "memory", "energy", "of the ANN's")
    return "\n".join([columns(rows, head), *told])


def _break_even(found: Cost) -> str:
    lines = [f"inputs that are not 0, weighted by MACs: {found.rate:.1%}; it breaks even at"]
    for name in ("paper", "spikingjelly"):
        even = break_even_rate(found.counts.steps, CONVENTIONS[name])
        never = " (it cannot lose)" if even > 1 else ""
        lines.append(f"  {even:.1%} under {name}: {found.rate / even:.2f} of that{never}")
    return "\n".join(lines)


def _twins(found: Cost) -> str:
    rows = [(name, f"{si(pj * 1e-12)}J") for name, pj in found.twin.items()]
    which = "an ordinary network of this shape" if found.counts.neurons else "this network"
    return columns(rows, (f"{which}, in", "energy"))


def _metrics(found: Cost) -> str:
    return columns(list(_each_metric(found)), ("metric of S2", "", "of what"))


def _each_metric(found: Cost) -> Iterator[tuple[str, str, str]]:
    """Energy under "paper" (of a network without neurons "ann"), time of this machine."""
    counts, seconds = found.counts, found.latency
    convention = "paper" if counts.neurons else "ann"
    joules = found.energies[convention].pj * 1e-12
    mixed = f"energy counted under {convention}, time of this machine"
    yield "latency", f"{si(seconds)}s", "one image alone on this machine"
    yield "time per image", f"{si(found.seconds_per_image)}s", f"{counts.images} images at once"
    edp = energy_delay_product(joules, seconds)
    yield "energy-delay product", f"{si(edp)}J s", f"per inference; {mixed}"
    if counts.spikes:
        throughput = spiking_throughput(counts.spikes, seconds)
        inference = power_per_inference(joules, counts.spikes, seconds)
        per_spike = energy_per_spike(inference.power, throughput)
        trade = latency_energy(per_spike, throughput)
        yield "spikes", si(counts.spikes), "of one image, all neurons and steps"
        yield "spiking throughput", f"{si(throughput)}spikes/s", "on this machine"
        yield "energy per spike", f"{si(per_spike)}J", mixed
        yield "latency-energy", f"{si(trade.product)}J s", f"per spike; {mixed}"
        yield "power per inference", f"{si(inference.power)}W", mixed
    if found.sparsity is not None:
        yield "sparsity", f"{found.sparsity:.1%}", f"of {counts.neuron_count:,} neurons are silent"
    if counts.synapses:
        shown = f"{counts.synapses:,} synapses over the pairs of each layer's inputs and outputs"
        yield "connectivity efficiency", f"{found.density:.3g}", shown
        for bits in (8, 32):
            unshared = synaptic_memory(counts.synapses, bits) / 8
            shared = synaptic_memory(counts.weights, bits) / 8
            told = f"{bits} bits each; {si(shared)}B where synapses share weights"
            yield "synaptic memory", f"{si(unshared)}B", told
