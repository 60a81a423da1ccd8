"""Layers shared by several model families."""

from rheobase.layers.accumulated import Accumulated, FirstStepBias
from rheobase.layers.ann_activations import QCFS, ClampQuant, QuantReLU, RateNorm, ThresholdReLU
from rheobase.layers.attention import (
    ChannelMaskAttention,
    MembraneSelfAttention,
    SpikingSelfAttention,
    attention_product,
    split_heads,
)
from rheobase.layers.attention_multi import MultiDimensionalAttention
from rheobase.layers.attention_stsc import STSC
from rheobase.layers.attention_tcja import TCJA
from rheobase.layers.attention_temporal import TemporalAttention
from rheobase.layers.drop import DropPath
from rheobase.layers.events import EventConv2d, EventLinear
from rheobase.layers.int8 import Int8Conv2d, Int8Linear
from rheobase.layers.lookup import LookupConv2d, LookupLinear
from rheobase.layers.lsq import Quantise
from rheobase.layers.membrane import MembraneBlock, MembraneStem
from rheobase.layers.metaformer import MetaConvBlock, meta_downsampling
from rheobase.layers.mlp import MembraneMlp, SpikingMlp, add_mlp
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
from rheobase.layers.recompute import Recomputation, recompute
from rheobase.layers.recurrent import Recurrent
from rheobase.layers.rep_conv import RepConv
from rheobase.layers.residual import sew_join
from rheobase.layers.reversible import ReversibleSequence
from rheobase.layers.spiking_block import SpikingBlock
from rheobase.layers.time import over_time, repeat
from rheobase.layers.unit import ConvNormNeuron, NeuronConvNorm
from rheobase.layers.wavelet import haar, inverse_haar

__all__ = [
    "BGN",
    "BNTT",
    "MPBN",
    "QCFS",
    "STSC",
    "TAB",
    "TCJA",
    "TEBN",
    "Accumulated",
    "ChannelMaskAttention",
    "ClampQuant",
    "ConvNormNeuron",
    "DropPath",
    "EventConv2d",
    "EventLinear",
    "FirstStepBias",
    "FusedNormNeuron",
    "Int8Conv2d",
    "Int8Linear",
    "LookupConv2d",
    "LookupLinear",
    "MembraneBlock",
    "MembraneMlp",
    "MembraneSelfAttention",
    "MembraneStem",
    "MetaConvBlock",
    "MultiDimensionalAttention",
    "NeuNorm",
    "NeuronConvNorm",
    "QuantReLU",
    "Quantise",
    "RateNorm",
    "Recomputation",
    "Recurrent",
    "RepConv",
    "ReversibleSequence",
    "SpikingBlock",
    "SpikingMlp",
    "SpikingSelfAttention",
    "TemporalAttention",
    "ThresholdDependentBatchNorm2d",
    "ThresholdReLU",
    "add_mlp",
    "attention_product",
    "haar",
    "inverse_haar",
    "meta_downsampling",
    "over_time",
    "recompute",
    "repeat",
    "sew_join",
    "split_heads",
]
