"""The efficiency metrics of S2 (sections 4 to 6), each with the unit its equation can have.

"S2" is the survey "Neuromorphic Computing with Large Scale Spiking Neural Networks" (preprint,
March 2025). Where a printed equation has another unit than the quantity it is said to be, the
docstring says so and the function gives the quantities that are meant, each by its name.

Energies are in joules, powers in watts, times in seconds. Energy and time of one inference must be
of one and the same machine: those of `rheobase.deploy` are of a chip.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "LatencyEnergy",
    "PowerPerInference",
    "connectivity_efficiency",
    "energy_delay_product",
    "energy_per_spike",
    "latency_energy",
    "power_per_inference",
    "spiking_throughput",
    "synaptic_memory",
]


def energy_delay_product(energy: float, delay: float) -> float:
    r""":math:`\mathrm{EDP} = E D`, in joule seconds.

    S2 takes both "per spike"; others take both per inference. The two differ by the square of the
    number of spikes, so say which it is.

    Args:
        energy: of an inference, or of a spike, in joules.
        delay: of the same, in seconds.

    Raises:
        ValueError: one of them is negative.

    Source: S2 section 4.1.

    >>> energy_delay_product(2e-6, 5e-3)
    1e-08
    """
    _check(energy=energy, delay=delay)
    return energy * delay


def spiking_throughput(spikes: float, seconds: float) -> float:
    r""":math:`T_s = N_s / t_c`, spikes per second.

    S2 calls N_s spikes "per second" and t_c the time "per spike", of which the quotient is no
    throughput; here N_s are the spikes processed in the time t_c, one after another or at once.

    Raises:
        ValueError: a negative number, or no time.

    Source: S2 section 4.3.

    >>> spiking_throughput(3000, 0.5)
    6000.0
    """
    _check(spikes=spikes)
    _check_positive(seconds=seconds)
    return spikes / seconds


def energy_per_spike(power: float, throughput: float) -> float:
    r""":math:`E_s = P / T_s`, joules per spike; with synaptic operations per second, per operation.

    Args:
        power: in watts; with what the chip takes at rest, or without it: say which.
        throughput: of `spiking_throughput`.

    Raises:
        ValueError: a negative power, or no throughput.

    Source: S2 section 4.3.

    >>> energy_per_spike(0.5, 1000.0)
    0.0005
    """
    _check(power=power)
    _check_positive(throughput=throughput)
    return power / throughput


def connectivity_efficiency(synapses: int, neurons: int, possible: int | None = None) -> float:
    r""":math:`C_\mathrm{eff} = N_\mathrm{syn} / N_\mathrm{neur}^2`, a density.

    Not bounded by 1 where two neurons have several synapses. S2 prefers low values, "efficiency"
    notwithstanding.

    Args:
        synapses: of the network, each weight counted wherever it is used.
        neurons: among which they lie.
        possible: pairs that may be connected at all, in place of the square: in a layered network
            the sum of inputs times outputs over its layers.

    Raises:
        ValueError: a negative number of synapses, or no neurons.

    Source: S2 section 5.1.

    The cortical microcircuit of Potjans and Diesmann 2014:

    >>> round(connectivity_efficiency(298_880_968, 77_169), 4)
    0.0502
    """
    _check(synapses=synapses)
    _check_positive(pairs=neurons**2 if possible is None else possible)
    return synapses / (neurons**2 if possible is None else possible)


@dataclass(frozen=True)
class LatencyEnergy:
    """What an event costs in time and energy.

    Attributes:
        latency: seconds per event.
        energy: joules per event.
    """

    latency: float
    energy: float

    @property
    def power(self) -> float:
        """S2's E times T_s: a power, in watts."""
        return self.energy / self.latency

    @property
    def product(self) -> float:
        """Latency times energy, in joule seconds: low if an event is both quick and cheap."""
        return self.latency * self.energy


def latency_energy(energy: float, throughput: float) -> LatencyEnergy:
    r"""The trade-off that S2 writes as :math:`L = E T_s`, "the latency per event".

    Energy per event times events per second is a power, and no latency: that is 1 / T_s where
    events come one after another. Both are given, and their product.

    Args:
        energy: of an event, in joules.
        throughput: events per second.

    Raises:
        ValueError: a negative energy, or no throughput.

    Source: S2 section 5.2.

    >>> trade = latency_energy(2e-9, 1e6)
    >>> trade.latency, trade.power, trade.product
    (1e-06, 0.002, 2e-15)
    """
    _check(energy=energy)
    _check_positive(throughput=throughput)
    return LatencyEnergy(1.0 / throughput, energy)


@dataclass(frozen=True)
class PowerPerInference:
    """What an inference costs, and what its spikes do.

    Attributes:
        power: watts while it runs.
        energy_per_spike: joules; S2's equation. Infinite if nothing fires.
    """

    power: float
    energy_per_spike: float


def power_per_inference(energy: float, spikes: float, latency: float) -> PowerPerInference:
    r"""S2's power per inference, :math:`P_\mathrm{inf} = E_\mathrm{inf} / N_\mathrm{spikes}`.

    That quotient is an energy per spike; the power of an inference is its energy over its time.

    Args:
        energy: of an inference, in joules.
        spikes: that it sends.
        latency: how long it takes, in seconds.

    Raises:
        ValueError: a negative number, or no time.

    Source: S2 section 5.4.

    >>> power_per_inference(0.25, 2000, 0.5)
    PowerPerInference(power=0.5, energy_per_spike=0.000125)
    """
    _check(energy=energy, spikes=spikes)
    _check_positive(latency=latency)
    return PowerPerInference(energy / latency, energy / spikes if spikes else float("inf"))


def synaptic_memory(synapses: int, bits: int, index_bits: int = 0, pointers: int = 0) -> int:
    r""":math:`M_\mathrm{syn} = N_\mathrm{syn} b_\mathrm{syn}`, in bits.

    Args:
        synapses: how many are stored. A convolution whose weights are shared stores its weights;
            on chips that cannot share, each synapse.
        bits: of a weight.
        index_bits: of which neuron it goes to (and its delay), in sparse storage.
        pointers: bits of where each neuron's synapses start, all together.

    Raises:
        ValueError: a negative number.

    Source: S2 section 6.3. What a core of a chip takes is in `rheobase.deploy`.

    >>> synaptic_memory(72, 8), synaptic_memory(1000, 8, index_bits=10, pointers=3200)
    (576, 21200)
    """
    _check(synapses=synapses, bits=bits, index_bits=index_bits, pointers=pointers)
    return synapses * (bits + index_bits) + pointers


def _check(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} is at least 0, got {value}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0, got {value}")
