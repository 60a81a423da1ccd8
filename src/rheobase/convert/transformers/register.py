"""What conversion of transformers adds to the tables of the pipeline."""

from __future__ import annotations

from rheobase.convert.pipeline import OPERATORS
from rheobase.convert.prepare import PASSES
from rheobase.convert.recipes import RECIPES
from rheobase.convert.spiking import NEURONS
from rheobase.convert.statistics import STATISTICS
from rheobase.convert.transformers.approximate import write_out_functions
from rheobase.convert.transformers.neurons import TRANSFORMER_NEURONS
from rheobase.convert.transformers.once import ONCE
from rheobase.convert.transformers.operands import (
    encode_for_spikellm,
    encode_for_sta,
    encode_hidden_operands,
    encode_linear_inputs,
    encode_operands,
    note_weights,
)
from rheobase.convert.transformers.operators import ACCUMULATED, INSTANTANEOUS
from rheobase.convert.transformers.recipes import TRANSFORMER_RECIPES
from rheobase.convert.transformers.stacks import write_out_attention
from rheobase.convert.transformers.statistics import TRANSFORMER_STATISTICS

__all__ = ["add_transformers"]


def add_transformers() -> None:
    """Add passes, operators, neurons, statistics and recipes."""
    OPERATORS.update(
        accumulated=ACCUMULATED,
        instantaneous=INSTANTANEOUS,
        once=ONCE,
    )
    PASSES.update(
        write_out_attention=write_out_attention,
        write_out_functions=write_out_functions,
        encode_operands=encode_operands,
        encode_hidden_operands=encode_hidden_operands,
        encode_for_sta=encode_for_sta,
        encode_for_spikellm=encode_for_spikellm,
        encode_linear_inputs=encode_linear_inputs,
        note_weights=note_weights,
    )
    NEURONS.update(TRANSFORMER_NEURONS)
    STATISTICS.update(TRANSFORMER_STATISTICS)
    RECIPES.update({recipe.name: recipe for recipe in TRANSFORMER_RECIPES})
