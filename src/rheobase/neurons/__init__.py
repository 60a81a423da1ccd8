"""Neurons: each a few scalar functions and coefficients, fused on every device."""

from rheobase.neurons.analog import PLIAF
from rheobase.neurons.base import Neuron
from rheobase.neurons.detached import DetachedLIF
from rheobase.neurons.factory import NEURONS, neuron_factory
from rheobase.neurons.firing import SpikeFiringApproximation, spike_trains
from rheobase.neurons.integrate_and_fire import IF, LIF, PLIF
from rheobase.neurons.lapicque import Lapicque
from rheobase.neurons.record import Membrane, record_membranes
from rheobase.neurons.ternary import TernaryIF

__all__ = [
    "IF",
    "LIF",
    "NEURONS",
    "PLIAF",
    "PLIF",
    "DetachedLIF",
    "Lapicque",
    "Membrane",
    "Neuron",
    "SpikeFiringApproximation",
    "TernaryIF",
    "neuron_factory",
    "record_membranes",
    "spike_trains",
]
