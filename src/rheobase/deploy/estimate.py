"""What an inference would cost on a chip, by what was published of its events."""

from __future__ import annotations

from dataclasses import dataclass

from rheobase.deploy.chips import Figure
from rheobase.deploy.mapping import Mapping
from rheobase.deploy.placement import traffic
from rheobase.measure import energy_delay_product, energy_per_spike, spiking_throughput

__all__ = ["Charge", "Estimate", "estimate"]


@dataclass(frozen=True)
class Charge:
    """One kind of event: how many in an inference, picojoules of each, and whose figure that is."""

    events: str
    count: float
    pj: float
    source: str

    @property
    def joules(self) -> float:
        """All of them."""
        return 1e-12 * self.count * self.pj


@dataclass(frozen=True)
class Estimate:
    """One inference on a chip.

    Attributes:
        charges: what was charged.
        missing: what no figure was published of.
        step: seconds of a time step; None where none was published.
        step_source: whose figure.
        steps: time steps until the last population has seen the last step.
        spikes: of the neurons on the chip and of what is sent to it.
        synaptic_events: on the chip.
    """

    charges: tuple[Charge, ...]
    missing: tuple[str, ...]
    step: float | None
    step_source: str
    steps: int
    spikes: float
    synaptic_events: float

    @property
    def energy(self) -> float:
        """Joules."""
        return sum(charge.joules for charge in self.charges)

    @property
    def latency(self) -> float | None:
        """Seconds from the first input to the last output."""
        return None if self.step is None else self.steps * self.step

    @property
    def power(self) -> float | None:
        """Watts."""
        return None if self.latency is None else self.energy / self.latency

    @property
    def energy_delay(self) -> float | None:
        """Energy-delay product of the inference, in joule seconds."""
        return None if self.latency is None else energy_delay_product(self.energy, self.latency)

    @property
    def throughput(self) -> float | None:
        """Spikes per second."""
        return None if self.latency is None else spiking_throughput(self.spikes, self.latency)

    @property
    def energy_per_spike(self) -> float | None:
        """Joules."""
        if self.power is None or not self.throughput:
            return None
        return energy_per_spike(self.power, self.throughput)


def estimate(mapping: Mapping) -> Estimate:
    r"""Energy and latency of an inference, as far as figures were published.

    .. math:: E = N_\mathrm{sop} E_\mathrm{sop} + N_\mathrm{update} E_\mathrm{update}
        + N_\mathrm{spike} E_\mathrm{spike} + \mathrm{hops}\, E_\mathrm{hop}

    Every neuron is charged as an active one. A figure that contains all a chip takes is charged
    alone. A step takes what was published, or on Loihi
    :math:`\max_c (n_{\mathrm{sop},c} t_\mathrm{sop} + n_c t_\mathrm{update}) + t_\mathrm{barrier}`
    over cores c, a population's events shared evenly among its cores. Spikes reach the next
    population a step later, so T + depth - 1 steps pass (`Mapping.depth`).
    """
    prices, steps = mapping.chip.prices, mapping.circuit.steps
    events = {
        one.population.name: sum(p.events for p in one.population.inputs) for one in mapping.placed
    }
    total = sum(events.values())
    outside = mapping.circuit.input_spikes + sum(
        one.spikes for one in mapping.circuit.populations if one.kind == "encoder"
    )
    spikes = outside + sum(one.population.spikes for one in mapping.placed)
    charges: list[Charge] = []
    missing: list[str] = []

    def charge(name: str, count: float, figure: Figure | None) -> None:
        if figure is None:
            missing.append(name)
        else:
            charges.append(Charge(name, count, figure.value, figure.source))

    if prices.power is None:
        charge("synaptic events", total, prices.synapse)
        if not prices.all_in:
            charge("neuron updates", float(mapping.neurons * steps), prices.update)
            charge("spikes", spikes, prices.spike)
            if prices.hop_across is None or prices.hop_along is None:
                missing.append("spikes between cores")
            else:
                moved = traffic(mapping)
                charge("hops east or west", moved.across, prices.hop_across)
                charge("hops north or south", moved.along, prices.hop_along)
            missing.append("power at rest")
    step, source = _step(mapping, events)
    passed = steps + mapping.depth - 1
    if prices.power is not None and step is not None:
        watts = prices.power.value
        charges.append(
            Charge("seconds at its power", passed * step, 1e12 * watts, prices.power.source)
        )
    return Estimate(tuple(charges), tuple(missing), step, source, passed, spikes, total)


def _step(mapping: Mapping, events: dict[str, float]) -> tuple[float | None, str]:
    prices = mapping.chip.prices
    if prices.step is not None:
        return prices.step.value, prices.step.source
    if prices.synapse_time is None or prices.update_time is None or prices.barrier is None:
        return None, "no length of a step was published"
    slowest = 0.0
    for one in mapping.placed:
        share = events[one.population.name] / (mapping.circuit.steps * one.cores)
        neurons = one.population.neurons / one.cores
        slowest = max(
            slowest, share * prices.synapse_time.value + neurons * prices.update_time.value
        )
    return slowest + prices.barrier.value, prices.synapse_time.source
