"""Measuring: operations, energy under named conventions, firing rates, wall time."""

from rheobase.measure.connections import Connections
from rheobase.measure.cost import Cost, cost
from rheobase.measure.energy import (
    CONVENTIONS,
    Convention,
    EnergyReport,
    LayerEnergy,
    break_even_rate,
    energy,
)
from rheobase.measure.gradients import GradientError, gradient_approximation_error
from rheobase.measure.latency import wall_time_per_image
from rheobase.measure.lemaire import LemaireEnergy, lemaire
from rheobase.measure.metrics import (
    LatencyEnergy,
    PowerPerInference,
    connectivity_efficiency,
    energy_delay_product,
    energy_per_spike,
    latency_energy,
    power_per_inference,
    spiking_throughput,
    synaptic_memory,
)
from rheobase.measure.operations import (
    LayerCount,
    NeuronCount,
    OperandCount,
    OperationReport,
    count_operations,
    is_sequence,
)
from rheobase.measure.rates import firing_rates, is_neuron, spiking_sparsity
from rheobase.measure.twin import twin_energies

__all__ = [
    "CONVENTIONS",
    "Connections",
    "Convention",
    "Cost",
    "EnergyReport",
    "GradientError",
    "LatencyEnergy",
    "LayerCount",
    "LayerEnergy",
    "LemaireEnergy",
    "NeuronCount",
    "OperandCount",
    "OperationReport",
    "PowerPerInference",
    "break_even_rate",
    "connectivity_efficiency",
    "cost",
    "count_operations",
    "energy",
    "energy_delay_product",
    "energy_per_spike",
    "firing_rates",
    "gradient_approximation_error",
    "is_neuron",
    "is_sequence",
    "latency_energy",
    "lemaire",
    "power_per_inference",
    "spiking_sparsity",
    "spiking_throughput",
    "synaptic_memory",
    "twin_energies",
    "wall_time_per_image",
]
