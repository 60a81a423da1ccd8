"""The energy model of Lemaire et al. 2022 (arXiv 2210.13107): operations, addresses and memory.

Numbers and constants are 32-bit integers in 45 nm, as SpikingJelly 2.0 implements the paper. The
paper's eq. 2 has a factor N_in too many beside its eqs. 8, 10, 15 and 17; those are meant here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from rheobase.measure.operations import LayerCount, NeuronCount, OperationReport

__all__ = [
    "LemaireCounts",
    "LemaireEnergy",
    "buffer_pj_per_byte",
    "lemaire",
    "lemaire_counts",
    "neuron_counts",
]

_ADD, _MAC = 0.1, 3.2  # pJ; a multiplication takes 3.1
_WORD = 4  # bytes
_QUEUE = 1000 * _WORD  # of spikes that wait

# Size of a buffer in bytes, and the energy of moving one byte of it; linear between.
_BUFFERS = ((0, 0.0), (8 * 2**10, 2.5), (32 * 2**10, 5.0), (2**20, 25.0))


def buffer_pj_per_byte(size: float) -> float:
    """Picojoules of reading or writing one byte of an SRAM buffer of so many bytes.

    >>> buffer_pj_per_byte(4000), buffer_pj_per_byte(2**21)
    (1.220703125, 25.0)
    """
    for (low, cheap), (high, dear) in pairwise(_BUFFERS):
        if size <= high:
            return cheap + (dear - cheap) * (size - low) / (high - low)
    return _BUFFERS[-1][1]


@dataclass(frozen=True)
class LemaireCounts:
    """What one layer does: operations, address computations, words of 4 bytes moved.

    Attributes:
        macs: multiply-accumulates.
        acs: additions: synapses that spikes reach, and biases.
        address_macs: of computing addresses.
        address_acs: likewise.
        reads: words of incoming spikes or values.
        writes: words that go out.
        parameters: words of weights and biases read.
        potentials: words of membrane potentials read, and as many written.
    """

    macs: float = 0.0
    acs: float = 0.0
    address_macs: float = 0.0
    address_acs: float = 0.0
    reads: float = 0.0
    writes: float = 0.0
    parameters: float = 0.0
    potentials: float = 0.0

    @property
    def operations_pj(self) -> float:
        """Energy of the arithmetic."""
        return _MAC * self.macs + _ADD * self.acs

    @property
    def addressing_pj(self) -> float:
        """Energy of computing addresses."""
        return _MAC * self.address_macs + _ADD * self.address_acs

    def memory_pj(
        self,
        input_bytes: float,
        output_bytes: float,
        parameter_bytes: float,
        potential_bytes: float,
    ) -> float:
        """Energy of moving those words, of buffers of these sizes."""
        return _WORD * (
            self.reads * buffer_pj_per_byte(input_bytes)
            + self.writes * buffer_pj_per_byte(output_bytes)
            + self.parameters * buffer_pj_per_byte(parameter_bytes)
            + 2 * self.potentials * buffer_pj_per_byte(potential_bytes)
        )


@dataclass(frozen=True)
class LemaireEnergy:
    """Picojoules of one image: arithmetic, addresses, memory."""

    operations_pj: float
    addressing_pj: float
    memory_pj: float

    @property
    def pj(self) -> float:
        """All of it."""
        return self.operations_pj + self.addressing_pj + self.memory_pj


def lemaire_counts(layer: LayerCount) -> LemaireCounts:
    """What a convolution or linear layer does for one image, in all steps that were computed.

    Where spikes come in each of them is sent to every output within the stride-rounded window,
    ``ceil(k / s)`` along each axis, which is more than it reaches where strides are odd.

    Raises:
        ValueError: a product of activations, which the paper does not have.
    """
    links = layer.connections
    if links is None:
        raise ValueError(f"{layer.name} multiplies activations, which this model has no energy for")
    operand = layer.operands[0]
    images = operand.size / (math.prod(links.inputs) * layer.steps)
    outs, window = links.outputs[0] // links.groups, math.prod(links.kernel)
    if operand.values != "spikes":
        dense = float(layer.macs * layer.steps)
        values = math.prod(links.inputs) * layer.steps
        sent = math.prod(links.outputs) * layer.steps
        filters = links.outputs[0] * window if layer.kind == "conv" else 0
        return LemaireCounts(
            macs=dense,
            acs=layer.bias_adds,
            address_acs=values + sent + filters,
            reads=dense if layer.kind == "conv" else values,
            writes=sent,
            parameters=dense + layer.bias_adds,
        )
    spikes = operand.nonzero / images
    rounded = zip(links.kernel, links.stride, strict=True)
    reached = spikes * outs * math.prod(math.ceil(k / s) for k, s in rounded)
    fetched = spikes * outs * window
    return LemaireCounts(
        acs=reached + layer.bias_adds,
        address_macs=2 * spikes if layer.kind == "conv" else 0.0,
        address_acs=fetched,
        reads=spikes,
        parameters=fetched + layer.bias_adds,
        potentials=fetched,
    )


def neuron_counts(layer: NeuronCount) -> LemaireCounts:
    """What a layer of IF or LIF neurons does for one image."""
    return LemaireCounts(
        macs=layer.updates if layer.leaks else 0.0,
        acs=layer.spikes,
        writes=layer.spikes,
        potentials=layer.updates,
    )


def lemaire(report: OperationReport) -> LemaireEnergy:
    """Energy of one image. Products of activations are left out, as the paper has none.

    What a layer gives goes into the potentials of neurons behind it; only spikes are written.
    Buffers are as large as the largest layer needs for one image and one step: its parameters, its
    neurons' potentials, its values where they are no spikes; spikes wait in a queue of 1000.
    """
    total = LemaireEnergy(0.0, 0.0, 0.0)
    for layer in report.layers:
        if layer.connections is not None:
            links = layer.connections
            spikes = layer.operands[0].values == "spikes"
            inputs, potentials = _WORD * math.prod(links.inputs), _WORD * math.prod(links.outputs)
            biases = links.outputs[0] if links.bias else 0
            total = _add(
                total,
                replace(lemaire_counts(layer), writes=0.0),
                _QUEUE if spikes else inputs,
                0.0,
                _WORD * (links.weights + biases),
                potentials,
            )
    for neurons in report.neurons:
        states = _WORD * neurons.updates / report.steps
        total = _add(total, neuron_counts(neurons), 0.0, _QUEUE, 0.0, states)
    return total


def _add(total: LemaireEnergy, counts: LemaireCounts, *buffers: float) -> LemaireEnergy:
    return LemaireEnergy(
        total.operations_pj + counts.operations_pj,
        total.addressing_pj + counts.addressing_pj,
        total.memory_pj + counts.memory_pj(*buffers),
    )
