"""Layers shared by several model families."""

from rheobase.layers.attention import (
    MembraneSelfAttention,
    SpikingSelfAttention,
    attention_product,
    split_heads,
)
from rheobase.layers.metaformer import MetaConvBlock, meta_downsampling
from rheobase.layers.mlp import MembraneMlp, SpikingMlp
from rheobase.layers.norm import ThresholdDependentBatchNorm2d
from rheobase.layers.residual import sew_join
from rheobase.layers.time import over_time, repeat
from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm

__all__ = [
    "ConvNormNeuron",
    "MembraneMlp",
    "MembraneSelfAttention",
    "MetaConvBlock",
    "NeuronConvNorm",
    "SpikingMlp",
    "SpikingSelfAttention",
    "ThresholdDependentBatchNorm2d",
    "attention_product",
    "meta_downsampling",
    "over_time",
    "repeat",
    "sew_join",
    "split_heads",
]
