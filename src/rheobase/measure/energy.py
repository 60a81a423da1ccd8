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


@dataclass(frozen=True)
class Convention:
    """How counts become energy. No convention here includes memory.

    Attributes:
        name: its key in `CONVENTIONS`.
        statement: what it charges, in one sentence.
        mac_layers: which layers are charged dense MACs; all others are charged one addition (AC)
            per synaptic operation. "first": the first layer, if its input is analog; "not spikes":
            every layer whose input is not binary; "all": every layer.
        first_every_step: charge an analog first layer at every time step instead of once.
        mac_pj: energy of a multiply-accumulate, in picojoules.
        ac_pj: energy of an addition, in picojoules.
        technology: what those two energies are of.
    """

    name: str
    statement: str
    mac_layers: Literal["first", "not spikes", "all"]
    first_every_step: bool = False
    mac_pj: float = 4.6
    ac_pj: float = 0.9
    technology: str = "45 nm CMOS, 32-bit floating point (Horowitz 2014)"

    @property
    def constants(self) -> str:
        """The energies and their technology, to stand beside every figure."""
        return f"{self.technology}, {self.mac_pj:g} pJ per MAC, {self.ac_pj:g} pJ per AC"


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
        Convention("ann", "every layer is charged as dense MACs", "all"),
    )
}


@dataclass(frozen=True)
class LayerEnergy:
    """What one layer is charged for one image: MACs, ACs, and energy in picojoules."""

    layer: LayerCount
    macs: float
    acs: float
    pj: float


@dataclass(frozen=True)
class EnergyReport:
    """What a network is charged for one image under one convention."""

    convention: Convention
    layers: tuple[LayerEnergy, ...]

    @property
    def macs(self) -> float:
        """MACs charged."""
        return sum(layer.macs for layer in self.layers)

    @property
    def acs(self) -> float:
        """Additions charged: the synaptic operations."""
        return sum(layer.acs for layer in self.layers)

    @property
    def pj(self) -> float:
        """Energy, in picojoules."""
        return sum(layer.pj for layer in self.layers)


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
    return EnergyReport(convention, layers)


def _charge(layer: LayerCount, steps: int, convention: Convention) -> LayerEnergy:
    values = layer.spiking.values
    as_mac = {
        "first": layer.first and values == "analog",
        "not spikes": values != "spikes",
        "all": True,
    }[convention.mac_layers]
    if not as_mac:
        return LayerEnergy(layer, 0.0, layer.sops, convention.ac_pj * layer.sops)
    if layer.first:  # however often it was computed: a repeated image may be computed once
        macs = layer.macs * (steps if convention.first_every_step else 1)
    else:
        macs = layer.macs * layer.steps
    return LayerEnergy(layer, macs, 0.0, convention.mac_pj * macs)


def break_even_rate(steps: int, convention: Convention = CONVENTIONS["paper"]) -> float:
    """The rate r* at which T steps of additions cost what one pass of MACs costs.

    r* = E_MAC / (T E_AC): 5.11 / T at 4.6 and 0.9 pJ. Without memory, so an upper bound: above 1
    (T up to 5) such a convention lets no spiking network lose.

    >>> round(break_even_rate(4), 3)
    1.278
    """
    return convention.mac_pj / (steps * convention.ac_pj)
