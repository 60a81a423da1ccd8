"""Energy conventions: what the raw counts of `count_operations` cost, as data.

The field has no single energy figure: published conventions differ by more than a factor of 100
on the same network and the same spikes. A figure is therefore never given without its convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rheobase._errors import unknown_name
from rheobase.measure.operations import LayerCount, OperationReport

__all__ = ["CONVENTIONS", "Convention", "EnergyReport", "LayerEnergy", "break_even_rate", "energy"]

_WORD = 4  # bytes


@dataclass(frozen=True)
class Convention:
    """How counts become energy. A convention whose ``pj_per_byte`` is 0 charges no memory.

    Attributes:
        name: its key in `CONVENTIONS`.
        statement: what it charges, in one sentence.
        mac_layers: which layers are charged dense MACs; all others are charged one addition (AC)
            per synaptic operation. "first": the first layer, if its input is analog; "not spikes":
            every layer whose input is not binary; "all": every layer; "none".
        first_every_step: charge the first layer at every time step, even where it is computed once.
        mac_pj: energy of a multiply-accumulate, in picojoules.
        ac_pj: energy of an addition, in picojoules.
        padded: charge inputs that are zero padding too (`LayerCount.sops`); False: only synapses
            that inputs other than zero reach (`LayerCount.events`).
        pj_per_byte: energy of moving a byte: each operation reads a weight, each output of a layer
            with biases its bias, and each neuron reads and writes its state at each step, 4 bytes
            each.
        technology: what those energies are of.
    """

    name: str
    statement: str
    mac_layers: Literal["first", "not spikes", "all", "none"]
    first_every_step: bool = False
    mac_pj: float = 4.6
    ac_pj: float = 0.9
    padded: bool = True
    pj_per_byte: float = 0.0
    technology: str = "45 nm CMOS, 32-bit floating point (Horowitz 2014)"

    @property
    def constants(self) -> str:
        """The energies and their technology, to stand beside every figure."""
        told = f"{self.technology}, {self.mac_pj:g} pJ per MAC, {self.ac_pj:g} pJ per AC"
        return f"{told}, {self.pj_per_byte:g} pJ per byte" if self.pj_per_byte else told


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "paper",
            "the first layer is charged once as MAC, every other layer one AC per "
            "synaptic operation (rate x T x dense MACs, rate = nonzero inputs / inputs); batch "
            "norm, neurons, pooling, additions and memory are not charged",
            "first",
        ),
        Convention(
            "paper_every_step",
            "as in the papers, but the first layer is charged at every time step",
            "first",
            first_every_step=True,
        ),
        Convention(
            "integers_as_mac",
            "as in the papers, but every layer whose input is not binary is charged dense "
            "MACs, as the authors of Spikingformer (arXiv 2304.11954) recount Spikformer",
            "not spikes",
        ),
        Convention(
            "ac_only",
            "one AC per synapse that an input other than zero reaches, in the first layer too, as "
            "the counter of SpikingResformer (Shi et al. 2024, arXiv 2403.14302) does",
            "none",
            first_every_step=True,
            padded=False,
        ),
        Convention(
            "spikingjelly",
            "as SpikingJelly 2.0 estimates with memory: one AC per synapse that a spike reaches, "
            "dense MACs where the input is not binary, 24.96 pJ per byte of weights, biases and "
            "neuron states that these read or write",
            "not spikes",
            first_every_step=True,
            padded=False,
            pj_per_byte=24.96,
        ),
        Convention("ann", "every layer is charged as dense MACs", "all"),
    )
}


@dataclass(frozen=True)
class LayerEnergy:
    """What one layer is charged for one image: MACs, ACs, bytes moved, and picojoules."""

    layer: LayerCount
    macs: float
    acs: float
    pj: float
    moved: float = 0.0


@dataclass(frozen=True)
class EnergyReport:
    """What a network is charged for one image under one convention.

    Attributes:
        convention: what is charged.
        layers: what each layer is.
        state_bytes: bytes of neuron states that are moved, of a convention with memory.
    """

    convention: Convention
    layers: tuple[LayerEnergy, ...]
    state_bytes: float = 0.0

    @property
    def macs(self) -> float:
        """MACs charged."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Additions charged: the synaptic operations."""
        return sum(layer.acs for layer in self.layers)

    @property
    def memory_pj(self) -> float:
        """Energy of moving weights, biases and states, in picojoules."""
        moved = self.state_bytes + sum(layer.moved for layer in self.layers)
        return self.convention.pj_per_byte * moved

    @property
    def pj(self) -> float:
        """Energy, in picojoules, memory included where the convention has it."""
        states = self.convention.pj_per_byte * self.state_bytes
        return sum(layer.pj for layer in self.layers) + states


def energy(report: OperationReport, convention: str | Convention = "paper") -> EnergyReport:
    """Charge the counted operations of one image.

    Raises:
        ValueError: no convention has that name.
    """
    if isinstance(convention, str):
        if convention not in CONVENTIONS:
            raise ValueError(unknown_name("energy convention", convention, CONVENTIONS))
        convention = CONVENTIONS[convention]
    layers = tuple(_charge(layer, report.steps, convention) for layer in report.layers)
    if not convention.pj_per_byte:
        return EnergyReport(convention, layers)
    moved = sum(2 * _WORD * layer.updates * layer.state for layer in report.neurons)
    return EnergyReport(convention, layers, moved)


def _charge(layer: LayerCount, steps: int, convention: Convention) -> LayerEnergy:
    values = layer.spiking.values
    as_mac = {
        "first": layer.first and values == "analog",
        "not spikes": values != "spikes",
        "all": True,
        "none": False,
    }[convention.mac_layers]
    again = steps / layer.steps if layer.first and convention.first_every_step else 1.0
    macs, acs = 0.0, 0.0
    if not as_mac:
        acs = again * (layer.sops if convention.padded else layer.events)
    elif layer.first:  # however often it was computed: a repeated image may be computed once
        macs = layer.macs * (steps if convention.first_every_step else 1)
    else:
        macs = layer.macs * layer.steps
    moved = 0.0
    if convention.pj_per_byte:
        moved = _WORD * (macs + acs + again * layer.bias_adds)
    pj = convention.mac_pj * macs + convention.ac_pj * acs + convention.pj_per_byte * moved
    return LayerEnergy(layer, macs, acs, pj, moved)


def break_even_rate(steps: int, convention: Convention = CONVENTIONS["paper"]) -> float:
    """The rate r* at which T steps of additions cost what one pass of MACs costs.

    r* = (E_MAC + w) / (T (E_AC + w)), w the energy of fetching a weight (4 bytes; 0 where the
    convention has no memory): 5.11 / T at 4.6 and 0.9 pJ, so that for T up to 5 such a convention
    lets no spiking network lose. Moving the neurons' states lowers it further.

    >>> round(break_even_rate(4), 3), round(break_even_rate(4, CONVENTIONS["spikingjelly"]), 3)
    (1.278, 0.259)
    """
    fetch = _WORD * convention.pj_per_byte
    return (convention.mac_pj + fetch) / (steps * (convention.ac_pj + fetch))
