"""Layers shared by several model families."""

from rheobase.layers.attention import SpikingSelfAttention
from rheobase.layers.attention_multi import MultiDimensionalAttention
from rheobase.layers.attention_stsc import STSC
from rheobase.layers.attention_tcja import TCJA
from rheobase.layers.attention_temporal import TemporalAttention
from rheobase.layers.norms import (
    BGN,
    BNTT,
    MPBN,
    TAB,
    TEBN,
    FusedNormNeuron,
    NeuNorm,
    ThresholdDependentBatchNorm2d,
)
from rheobase.layers.residual import sew_join
from rheobase.layers.time import over_time, repeat
from rheobase.layers.unit import ConvNormNeuron

__all__ = [
    "BGN",
    "BNTT",
    "MPBN",
    "STSC",
    "TAB",
    "TCJA",
    "TEBN",
    "ConvNormNeuron",
    "FusedNormNeuron",
    "MultiDimensionalAttention",
    "NeuNorm",
    "SpikingSelfAttention",
    "TemporalAttention",
    "ThresholdDependentBatchNorm2d",
    "over_time",
    "repeat",
    "sew_join",
]
