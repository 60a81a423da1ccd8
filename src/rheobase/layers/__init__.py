"""Layers shared by several model families."""

from rheobase.layers.attention import SpikingSelfAttention
from rheobase.layers.norms import (
    BGN,
    BNTT,
    MPBN,
    TAB,
    TEBN,
    NeuNorm,
    ThresholdDependentBatchNorm2d,
)
from rheobase.layers.residual import sew_join
from rheobase.layers.time import over_time, repeat
from rheobase.layers.unit import ConvNormNeuron

__all__ = [
    "ConvNormNeuron",
    "SpikingSelfAttention",
    "ThresholdDependentBatchNorm2d",
    "over_time",
    "repeat",
    "sew_join",
]
