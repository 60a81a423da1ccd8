"""Measuring: operations, energy under named conventions, firing rates, wall time."""

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
from rheobase.measure.operations import (
    LayerCount,
    OperandCount,
    OperationReport,
    count_operations,
)
from rheobase.measure.rates import firing_rates, spiking_sparsity

__all__ = [
    "CONVENTIONS",
    "Convention",
    "EnergyReport",
    "GradientError",
    "LayerCount",
    "LayerEnergy",
    "OperandCount",
    "OperationReport",
    "break_even_rate",
    "count_operations",
    "energy",
    "firing_rates",
    "gradient_approximation_error",
    "spiking_sparsity",
    "wall_time_per_image",
]
