"""The recipes for transformers."""

from __future__ import annotations

from rheobase.convert.recipe import (
    Encoding,
    NeuronRule,
    Preparation,
    Recipe,
    Statistic,
)

__all__ = ["TRANSFORMER_RECIPES"]

_ENCODED = Preparation(
    passes=("write_out_attention", "encode_operands"), operators=("accumulated",)
)
_ONCE = Preparation(
    passes=("write_out_attention", "encode_operands"), operators=("once", "accumulated")
)

TRANSFORMER_RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "ecmt",
        "Huang et al. 2024, ACM Multimedia, arXiv 2502.21193",
        source=("encode",),
        prepare=_ENCODED,
        # As the paper's text has it, the percentile is the largest of the eight thresholds.
        statistic=Statistic("signed_percentile", percentile=99.0, scale=2.0**-7),
        neuron=NeuronRule("multi_threshold", levels=8),
    ),
    Recipe(
        "ecmt_released",
        "Huang et al. 2024, ACM Multimedia: the released code",
        source=("encode",),
        prepare=Preparation(
            passes=("write_out_attention", "encode_hidden_operands"), operators=("accumulated",)
        ),
        # There the percentile is the smallest threshold.
        statistic=Statistic("released_ecmt", percentile=99.0),
        neuron=NeuronRule("multi_threshold", levels=8),
    ),
    Recipe(
        "spikezip_tf",
        "You et al. 2024, ICML, arXiv 2406.03470",
        source=("quantise", "encode"),
        prepare=_ONCE,
        statistic=Statistic("quantiser_step"),
        neuron=NeuronRule("st_bif", start=0.5, levels=16),
        encoding=Encoding("impulse", bias="once"),
    ),
    Recipe(
        "spikezip_tf_language",
        "You et al. 2024, ICML: the released code for language",
        source=("quantise", "encode"),
        prepare=_ONCE,
        statistic=Statistic("quantiser_step"),
        neuron=NeuronRule("st_bif", start=0.5, levels=16),
        # There biases are spread over as many first steps as there are levels.
        encoding=Encoding("impulse", bias="spread"),
    ),
    Recipe(
        "spiking_transformer_2021",
        "Mueller et al. 2021, ICSAI (Spiking Transformer Networks)",
        # Only the layers in front of a ReLU spike; attention is done at every step on that step.
        source=("relu",),
        prepare=Preparation(
            passes=("write_out_attention", "note_weights"), operators=("instantaneous",)
        ),
        statistic=Statistic("robust_with_weights", percentile=99.0),
        neuron=NeuronRule(strict=True),
    ),
    Recipe(
        "mst",
        "Wang et al. 2023, ICCV, arXiv 2210.01208",
        source=("qcfs",),
        prepare=Preparation(operators=("instantaneous",)),
        statistic=Statistic("learned"),
        neuron=NeuronRule(start=0.5),
        needs=("training",),
    ),
    Recipe(
        "sta",
        "Jiang et al. 2024, ICLR (Spatio-Temporal Approximation)",
        source=("encode", "relu"),
        prepare=Preparation(
            passes=("write_out_attention", "write_out_functions", "encode_for_sta"),
            operators=("accumulated",),
        ),
        statistic=Statistic("burst_threshold", batches="average", batch_size=16),
        granularity="channel",
        neuron=NeuronRule("burst", levels=2),
    ),
    Recipe(
        "integer_code",
        "SpikingBrain 2025, arXiv 2509.05276",
        source=("encode",),
        prepare=_ENCODED,
        statistic=Statistic("none"),
        neuron=NeuronRule("integer_code", levels=3),
    ),
    Recipe(
        "spikellm",
        "Xing et al. 2024, ICLR 2025 (SpikeLLM), arXiv 2407.04752",
        # Linear layers alone; ranges of weights are not learnt, nor are keys and values coded.
        source=("encode",),
        prepare=Preparation(
            passes=("write_out_attention", "encode_for_spikellm"), operators=("accumulated",)
        ),
        statistic=Statistic("saliency", percentile=90.0),
        neuron=NeuronRule("salient_code", levels=2),
    ),
)
