"""Neuromorphic chips as data: what a core holds, and what an event costs, each with its source.

Figures are those that were published; what was not is None, and is then neither checked nor
charged but named. Energies of different chips are no comparison: some are measured at the plug,
one is simulated before there was silicon, and they contain different things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rheobase._errors import unknown_name

__all__ = ["CHIPS", "Chip", "Figure", "Prices", "Synapses", "find_chip"]


@dataclass(frozen=True)
class Figure:
    """A published number and where it stands."""

    value: float
    source: str


@dataclass(frozen=True)
class Synapses:
    """How a chip keeps synapses.

    Attributes:
        kept: "crossbar": every pair of an input and a neuron of a core has its place; "blocks":
            lists for each input, in blocks of 64 bits (Loihi); "lists": a word for each synapse;
            "shared": a weight that several synapses have is kept once.
        weight_bits: of a weight.
        word_bits: of a synapse in lists.
        core_bits: memory of a core for them; None: no limit of its own, or none published.
        chip_bits: memory of a chip that its cores share for them.
        statement: what values a weight can have.
    """

    kept: Literal["crossbar", "blocks", "lists", "shared"]
    weight_bits: int
    statement: str
    word_bits: int = 0
    core_bits: int | None = None
    chip_bits: int | None = None


@dataclass(frozen=True)
class Prices:
    """Energy and time of events; None where nothing was published.

    Attributes:
        synapse: picojoules of a synaptic event.
        all_in: whether that contains all that the chip takes (updates, routing, leakage).
        update: picojoules of a neuron's update in a step.
        spike: picojoules of a spike within its tile.
        hop_across: picojoules of a spike's way to the next tile east or west.
        hop_along: north or south.
        power: watts, where nothing is known of events.
        step: seconds of a time step that all cores share.
        synapse_time: seconds of a synaptic event in a core, where steps take as long as they need.
        update_time: seconds of a neuron's update, likewise.
        barrier: seconds of bringing all cores to the same step, likewise.
    """

    synapse: Figure | None = None
    all_in: bool = False
    update: Figure | None = None
    spike: Figure | None = None
    hop_across: Figure | None = None
    hop_along: Figure | None = None
    power: Figure | None = None
    step: Figure | None = None
    synapse_time: Figure | None = None
    update_time: Figure | None = None
    barrier: Figure | None = None


@dataclass(frozen=True)
class Chip:
    """A chip: how many cores of what size, and what they cost.

    Attributes:
        id: its key in `CHIPS`.
        name: as published.
        paper: where it was.
        cores: of a chip (or of a wafer or board, as its name says), for neurons.
        neurons: that a core has.
        inputs: different inputs that a core can take; None: no such limit.
        outputs: pairs of a neuron and a core that it sends to, of all neurons of a core.
        axons_per_input: inputs of a core (or circuit) that an input with both signs takes.
        single_target: a neuron sends to one core only, so that further cores need copies of it.
        circuit_inputs: inputs of one neuron circuit, where circuits are joined for more.
        joined: how many circuits may be.
        mesh: tiles across and along, and cores in a tile.
        dynamics: what its neurons can do (`Population.dynamics`), and all before it in the order
            "integrator", "leaky", "other".
        synapses: how they are kept.
        prices: what events cost.
        sources: of the sizes above.
        notes: what else keeps a network off it, or what was not checked.
    """

    id: str
    name: str
    paper: str
    cores: int
    neurons: int
    synapses: Synapses
    prices: Prices
    sources: str
    dynamics: Literal["integrator", "leaky", "other"] = "leaky"
    inputs: int | None = None
    outputs: int | None = None
    axons_per_input: int = 1
    single_target: bool = False
    circuit_inputs: int | None = None
    joined: int = 1
    mesh: tuple[int, int, int] | None = None
    notes: str = ""


_LOIHI = "Davies et al. 2018, table 2 (simulated before silicon, 0.75 V, a minimum)"
_MAGAZINE = "IEEE Circuits and Systems Magazine 2022 Q2, p. 24"

CHIPS: dict[str, Chip] = {
    chip.id: chip
    for chip in (
        Chip(
            "truenorth",
            "IBM TrueNorth",
            "Merolla et al. 2014, Science 345(6197)",
            cores=4096,
            neurons=256,
            inputs=256,
            axons_per_input=2,
            single_target=True,
            mesh=(64, 64, 1),
            synapses=Synapses(
                "crossbar",
                weight_bits=2,
                statement="-1, 0 or 1: a binary crossbar whose inputs have one of four types, each "
                "neuron one weight a type; an input takes two, of opposite signs",
            ),
            prices=Prices(
                synapse=Figure(
                    26.0,
                    "Merolla et al. 2014: measured, the whole chip's 72 mW over its synaptic "
                    "events at 20 Hz and 128 active synapses a neuron",
                ),
                all_in=True,
                step=Figure(1e-3, "Merolla et al. 2014: one tick"),
            ),
            sources="Merolla et al. 2014: 4096 cores of 256 inputs by 256 neurons, 28 nm; a neuron "
            "sends to one input of one core; Cassidy et al. 2013: the leak is a constant, no share",
            dynamics="integrator",
            notes="resets and delays are not checked",
        ),
        Chip(
            "loihi",
            "Intel Loihi",
            "Davies et al. 2018, IEEE Micro 38(1)",
            cores=128,
            neurons=1024,
            inputs=4096,
            outputs=4096,
            mesh=(8, 4, 4),
            synapses=Synapses(
                "blocks",
                weight_bits=8,
                statement="8 bits and a shared exponent",
                core_bits=16384 * 64,
            ),
            prices=Prices(
                synapse=Figure(23.6, _LOIHI),
                update=Figure(81.0, f"{_LOIHI}; of an active neuron, an idle one takes 52"),
                spike=Figure(1.7, _LOIHI),
                hop_across=Figure(3.0, _LOIHI),
                hop_along=Figure(4.0, _LOIHI),
                synapse_time=Figure(3.5e-9, _LOIHI),
                update_time=Figure(8.4e-9, _LOIHI),
                barrier=Figure(465e-9, f"{_LOIHI}; 113 to 465 ns, by how many tiles"),
            ),
            sources="nengo-loihi (hardware/validate.py, block.py): 1024 compartments, 4096 input "
            "and 4096 output axons, 16384 words of 64 bits for synapses a core; 14 nm",
            notes="each synapse is kept, also of convolutions; power at rest is not charged",
        ),
        Chip(
            "spinnaker",
            "SpiNNaker, a board of 48 chips",
            "Furber et al. 2014, Proc. IEEE 102(5)",
            cores=48 * 16,
            neurons=256,
            synapses=Synapses(
                "lists",
                weight_bits=16,
                statement="16 bits",
                word_bits=32,
                chip_bits=48 * 128 * 2**20 * 8,
            ),
            prices=Prices(
                synapse=Figure(
                    600e3,
                    "Rhodes et al. 2020: measured at the plug, cortical microcircuit on 12 boards",
                ),
                all_in=True,
                step=Figure(1e-3, "van Albada et al. 2018: steps of 1 ms in real time"),
            ),
            sources="Furber et al. 2014: 18 cores, 16 of them for neurons, 128 MB a chip, 130 nm; "
            "a board has 48 chips; PACMAN: at most 256 neurons of a population on a core",
            dynamics="other",
            notes="in software; routing tables (1024 entries a chip) are not checked",
        ),
        Chip(
            "brainscales",
            "BrainScaleS-1, one wafer",
            "Schemmel et al. 2010, ISCAS",
            cores=384,
            neurons=512,
            axons_per_input=2,
            circuit_inputs=224,
            joined=64,
            synapses=Synapses(
                "crossbar",
                weight_bits=5,
                statement="4 bits and a sign; a row of synapses has one, so an input takes two",
            ),
            prices=Prices(
                power=Figure(600.0, "open-neuromorphic.org: of the system of one wafer"),
                step=Figure(
                    1e-7,
                    "Schemmel et al. 2010: 10 000 times faster than biology, where a step stands "
                    "for 1 ms; it runs in continuous time",
                ),
            ),
            sources="HBP neuromorphic guidebook: 384 HICANNs of 512 neuron circuits and 114 688 "
            "synapses; Schemmel et al. 2010: circuits joined for more than 10 000 inputs; 180 nm",
            notes="analog AdEx neurons, which vary; routing between HICANNs is not checked, so "
            "cores are a lower bound",
        ),
        Chip(
            "tianjic",
            "Tianjic",
            "Pei et al. 2019, Nature 572",
            cores=156,
            neurons=256,
            inputs=256,
            synapses=Synapses("crossbar", weight_bits=8, statement="8 bits"),
            prices=Prices(
                synapse=Figure(1.54, "Tang et al. 2023 (SENECA, PMC10326429), table 3"),
                step=Figure(
                    5050 / 300e6,
                    "IEEE Circuits and Systems Magazine 2022 Q2, p. 24: 5050 clocks of 300 MHz",
                ),
            ),
            sources=f"Pei et al. 2019; {_MAGAZINE}: 156 cores of 256 inputs and 256 neurons, 28 nm",
            notes="its cores compute ordinary layers too, which is not used here",
        ),
        Chip(
            "darwin3",
            "Darwin3",
            "Ma et al. 2024, National Science Review 11(5)",
            cores=575,
            neurons=4096,
            synapses=Synapses(
                "shared",
                weight_bits=8,
                statement="1, 2, 4, 8 or 16 bits; taken as 8",
                chip_bits=8 * 10**8,
            ),
            prices=Prices(
                synapse=Figure(5.47, "Ma et al. 2024: measured average at 0.8 V and 333 MHz"),
            ),
            sources="Ma et al. 2024: 24 by 24 nodes, one a RISC-V processor, up to 4096 neurons "
            "each, 2.35 million, 22 nm; connections are compressed; DarwinWafer, arXiv 2509.16213: "
            "0.1 billion synapses a chip",
            dynamics="other",
            notes="neurons are programs; memory of a core and length of a step were not found, so "
            "cores are a lower bound and there is no latency",
        ),
    )
}


def find_chip(name: str) -> Chip:
    """A chip by its id.

    Raises:
        ValueError: no chip has it; the nearest is offered.

    >>> find_chip("loihi").neurons
    1024
    """
    if name not in CHIPS:
        raise ValueError(unknown_name("chip", name, CHIPS))
    return CHIPS[name]
