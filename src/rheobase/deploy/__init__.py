"""Taking a network to a neuromorphic chip: whether it fits, how, and what it would cost there."""

from rheobase.deploy.chips import CHIPS, Chip, Figure, Prices, Synapses, find_chip
from rheobase.deploy.circuit import Circuit, Population, Projection, circuit_of
from rheobase.deploy.estimate import Charge, Estimate, estimate
from rheobase.deploy.layer_cores import SPECK, ConvLayer, LayerCores, LayerMapping, map_layers
from rheobase.deploy.mapping import Mapping, Placed, map_circuit
from rheobase.deploy.nir import NIRNetwork, load_nir
from rheobase.deploy.nir_export import nir_graph, save_nir
from rheobase.deploy.nir_file import NIRGraph, read_nir, write_nir
from rheobase.deploy.placement import Traffic, traffic
from rheobase.deploy.rounding import answers_kept, round_weights

__all__ = [
    "CHIPS",
    "SPECK",
    "Charge",
    "Chip",
    "Circuit",
    "ConvLayer",
    "Estimate",
    "Figure",
    "LayerCores",
    "LayerMapping",
    "Mapping",
    "NIRGraph",
    "NIRNetwork",
    "Placed",
    "Population",
    "Prices",
    "Projection",
    "Synapses",
    "Traffic",
    "answers_kept",
    "circuit_of",
    "estimate",
    "find_chip",
    "load_nir",
    "map_circuit",
    "map_layers",
    "nir_graph",
    "read_nir",
    "round_weights",
    "save_nir",
    "traffic",
    "write_nir",
]
