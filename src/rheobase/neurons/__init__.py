"""Neurons: each a few scalar functions and coefficients, fused on every device.

Those that fit no scan of one membrane run step by step (`StepNeuron`) or as one matrix over time
(`PSN`); to a network they are all the same.
"""

from rheobase.neurons.adaptive import ALIF, CLIF, AdaptiveQIF
from rheobase.neurons.analog import PLIAF
from rheobase.neurons.base import Neuron
from rheobase.neurons.biophysical import (
    AdEx,
    Biophysical,
    HodgkinHuxley,
    Izhikevich,
    PhysicalEIF,
    PhysicalLIF,
    PhysicalQIF,
)
from rheobase.neurons.burst import BurstIF, FedBackBurstIF
from rheobase.neurons.converted import RateIF
from rheobase.neurons.current import CUBALIF, IMLIF
from rheobase.neurons.detached import DetachedLIF
from rheobase.neurons.dsr import DSRIF, DSRLIF
from rheobase.neurons.factory import NEURONS, neuron_factory
from rheobase.neurons.firing import SpikeFiringApproximation, spike_trains
from rheobase.neurons.gated import GLIF
from rheobase.neurons.integer import GIF, ILIF, expand
from rheobase.neurons.integrate_and_fire import IF, LIF, PLIF
from rheobase.neurons.lapicque import Lapicque
from rheobase.neurons.learnable import KLIF, LTMD, DietLIF
from rheobase.neurons.learnable_surrogate import LSGLIF
from rheobase.neurons.multilevel import STBIF, MultiThreshold
from rheobase.neurons.nonlinear import EIF, QIF
from rheobase.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from rheobase.neurons.record import Membrane, record_membranes
from rheobase.neurons.refractory import RefractoryLIF
from rheobase.neurons.residual import MaskedRateIF, OffsetRateIF
from rheobase.neurons.resonate import RAF
from rheobase.neurons.signed import (
    ImbalancedSignedIF,
    MagnitudeResetTernaryIF,
    SignedIF,
    TernaryIF,
    TernaryLIF,
)
from rheobase.neurons.spike_codes import (
    BinaryCode,
    GreedyCode,
    IntegerCode,
    SalientCode,
    affine_integers,
)
from rheobase.neurons.stdb import STDBIF
from rheobase.neurons.stepwise import StepNeuron, spike
from rheobase.neurons.tandem import TandemIF

__all__ = [
    "ALIF",
    "CLIF",
    "CUBALIF",
    "DSRIF",
    "DSRLIF",
    "EIF",
    "GIF",
    "GLIF",
    "IF",
    "ILIF",
    "IMLIF",
    "KLIF",
    "LIF",
    "LSGLIF",
    "LTMD",
    "NEURONS",
    "PLIAF",
    "PLIF",
    "PSN",
    "QIF",
    "RAF",
    "STBIF",
    "STDBIF",
    "AdEx",
    "AdaptiveQIF",
    "BinaryCode",
    "Biophysical",
    "BurstIF",
    "DetachedLIF",
    "DietLIF",
    "FedBackBurstIF",
    "GreedyCode",
    "HodgkinHuxley",
    "ImbalancedSignedIF",
    "IntegerCode",
    "Izhikevich",
    "Lapicque",
    "MagnitudeResetTernaryIF",
    "MaskedPSN",
    "MaskedRateIF",
    "Membrane",
    "MultiThreshold",
    "Neuron",
    "OffsetRateIF",
    "PhysicalEIF",
    "PhysicalLIF",
    "PhysicalQIF",
    "RateIF",
    "RefractoryLIF",
    "SalientCode",
    "SignedIF",
    "SlidingPSN",
    "SpikeFiringApproximation",
    "StepNeuron",
    "TandemIF",
    "TernaryIF",
    "TernaryLIF",
    "affine_integers",
    "expand",
    "neuron_factory",
    "record_membranes",
    "spike",
    "spike_trains",
]
