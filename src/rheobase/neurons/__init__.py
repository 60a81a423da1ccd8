"""Neurons: each a few scalar functions and coefficients, fused on every device."""

from rheobase.neurons.base import Neuron
from rheobase.neurons.detached import DetachedLIF
from rheobase.neurons.factory import NEURONS, neuron_factory
from rheobase.neurons.firing import SpikeFiringApproximation, spike_trains
from rheobase.neurons.integrate_and_fire import IF, LIF, PLIF

__all__ = [
    "IF",
    "LIF",
    "NEURONS",
    "PLIF",
    "DetachedLIF",
    "Neuron",
    "SpikeFiringApproximation",
    "neuron_factory",
    "spike_trains",
]
