"""Conversion of transformers: attention, softmax, norms and activations without ReLU.

`write_out_attention` and `encode_operands` make the graph ready; `AccumulatedOperator` evaluates
what spikes can't pass on what has come in so far; the recipes are in `recipes`.
"""

from rheobase.convert.transformers.count import SpikeCount, count_spikes
from rheobase.convert.transformers.neurons import TRANSFORMER_NEURONS, Coded, SizedSpiking
from rheobase.convert.transformers.operands import (
    Encode,
    encode_hidden_operands,
    encode_linear_inputs,
    encode_operands,
)
from rheobase.convert.transformers.operators import (
    ACCUMULATED,
    INSTANTANEOUS,
    AccumulatedOperator,
    Instantaneous,
)
from rheobase.convert.transformers.recipes import TRANSFORMER_RECIPES
from rheobase.convert.transformers.register import add_transformers
from rheobase.convert.transformers.stacks import write_out_attention
from rheobase.convert.transformers.statistics import TRANSFORMER_STATISTICS

__all__ = [
    "ACCUMULATED",
    "INSTANTANEOUS",
    "TRANSFORMER_NEURONS",
    "TRANSFORMER_RECIPES",
    "TRANSFORMER_STATISTICS",
    "AccumulatedOperator",
    "Coded",
    "Encode",
    "Instantaneous",
    "SizedSpiking",
    "SpikeCount",
    "add_transformers",
    "count_spikes",
    "encode_hidden_operands",
    "encode_linear_inputs",
    "encode_operands",
    "write_out_attention",
]
