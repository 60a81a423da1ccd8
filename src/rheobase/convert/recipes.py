"""The recipes: every conversion method as a record."""

from __future__ import annotations

from dataclasses import replace

from rheobase.convert.recipe import (
    Encoding,
    NeuronRule,
    PostCalibration,
    Preparation,
    Readout,
    Recipe,
    Statistic,
)

__all__ = ["RECIPES", "recipes"]

_RELUS = ("relu", "relu6", "clip", "threshold_relu")
_CODED = (
    "leaky_relu", "gelu", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "elu", "mish",
    "softplus", "selu", "celu", "softsign", "log_sigmoid", "hardtanh",
)  # fmt: skip
_TRAINED = ("threshold_relu", "qcfs", "quant_relu", "rate_norm")
_CALIBRATION = "Li et al. 2021, ICML (SNN calibration), arXiv 2106.06984"

_DIEHL = "Diehl et al. 2015, IJCNN"
_QCFS = Recipe(
    "qcfs",
    "Bu et al. 2022b, ICLR (QCFS), arXiv 2303.04347",
    source=_TRAINED,
    statistic=Statistic("learned"),
    neuron=NeuronRule(start=0.5),
    needs=("training",),
)
_LIGHT = Recipe(
    "calibration_light",
    _CALIBRATION,
    source=_RELUS,
    statistic=Statistic("least_squares", batches="average"),
    neuron=NeuronRule(shift=True),
    post=(PostCalibration("bias_mean", samples=128),),
)

_ALL = (
    Recipe(
        "cao2015",
        "Cao et al. 2015, IJCV 113(1)",
        source=_RELUS,
        prepare=Preparation(passes=("spiking_averages",)),
        statistic=Statistic("constant"),
        neuron=NeuronRule(reset="zero_unless_biased"),
        encoding=Encoding("poisson"),
        needs=("training",),
    ),
    Recipe(
        "diehl_model",
        _DIEHL,
        source=_RELUS,
        statistic=Statistic("model_bound"),
        neuron=NeuronRule(reset="zero_unless_biased"),
        needs=(),
    ),
    Recipe(
        "diehl_data",
        _DIEHL,
        source=_RELUS,
        statistic=Statistic("diehl_data"),
        neuron=NeuronRule(reset="zero_unless_biased"),
    ),
    Recipe(
        "rueckauer",
        "Rueckauer et al. 2017, Frontiers in Neuroscience 11:682",
        source=_RELUS,
        prepare=Preparation(max_pool="gate", operators=("gate", "softmax_spikes")),
        statistic=Statistic("percentile", percentile=99.9, nonzero=True),
    ),
    Recipe(
        "spike_norm",
        "Sengupta et al. 2019, Frontiers in Neuroscience 13:95, arXiv 1802.02627",
        source=_RELUS,
        statistic=Statistic("max_current"),
        neuron=NeuronRule(reset="zero_unless_biased"),
        encoding=Encoding("poisson"),
    ),
    Recipe(
        "rmp",
        "Han et al. 2020, CVPR (RMP-SNN), arXiv 2003.01811",
        source=_RELUS,
        statistic=Statistic("max_current", scale=0.8),
        encoding=Encoding("poisson"),
    ),
    Recipe(
        "spiking_yolo",
        "Kim et al. 2020, AAAI (Spiking-YOLO), arXiv 1903.06530",
        source=(*_RELUS, "leaky_relu", "prelu"),
        statistic=Statistic("max"),
        granularity="channel",
        neuron=NeuronRule("imbalanced"),
    ),
    Recipe(
        "clamp_quant",
        "Yan et al. 2021, AAAI (CQ)",
        source=("clamp_quant", "threshold_relu"),
        statistic=Statistic("learned"),
        needs=("training",),
    ),
    Recipe(
        "spiking_resnet",
        "Hu et al. 2021, IEEE TNNLS (Spiking Deep Residual Network), arXiv 1805.01352",
        source=_RELUS,
        statistic=Statistic("percentile", percentile=99.9),
        post=(PostCalibration("compensate", samples=128),),
    ),
    Recipe(
        "threshold_relu",
        "Deng & Gu 2021, ICLR, arXiv 2103.00476",
        source=_RELUS,
        statistic=Statistic("max"),
        neuron=NeuronRule(shift=True),
        readout=Readout("spikes"),
        needs=("data", "training"),
    ),
    Recipe(
        "threshold_max",
        "Rueckauer et al. 2017 with the maximum, which Diehl et al. 2015 balance by",
        source=_RELUS,
        statistic=Statistic("max"),
    ),
    _LIGHT,
    replace(
        _LIGHT,
        name="calibration_advanced",
        post=(
            PostCalibration(
                "weights", samples=1024, iterations=5000, learning_rate=1e-5, batch_size=32
            ),
            PostCalibration("potential_mean", samples=128),
        ),
    ),
    replace(_LIGHT, name="calibration_none", post=()),
    replace(
        _LIGHT,
        name="parameter_calibration",
        paper="Li et al. 2024, IJCV (error-aware conversion with parameter calibration)",
        granularity="channel",
        post=(
            PostCalibration("bias_mean", samples=128),
            PostCalibration("potential_mean", samples=128),
        ),
    ),
    replace(
        _LIGHT,
        name="burst",
        paper="Li & Zeng 2022, IJCAI (burst spikes), arXiv 2204.13271",
        neuron=NeuronRule(shift=True, levels=4),
    ),
    replace(
        _QCFS,
        name="potential_init",
        paper="Bu et al. 2022a, AAAI (optimised potential initialisation), arXiv 2202.01440",
    ),
    _QCFS,
    replace(
        _QCFS,
        name="fast_snn",
        paper="Hu et al. 2023, IEEE TPAMI 45(12) (Fast-SNN), arXiv 2305.19868",
        neuron=NeuronRule("signed", start=0.5, tolerance=1e-3),
    ),
    replace(
        _QCFS,
        name="fast_snn_finetuned",
        paper="Hu et al. 2023, IEEE TPAMI 45(12) (Fast-SNN, layer-wise fine-tuning)",
        neuron=NeuronRule("signed", start=0.5, tolerance=1e-3),
        post=(PostCalibration("finetune", iterations=400, learning_rate=1e-3, batch_size=128),),
        needs=("data", "training"),
    ),
    replace(
        _QCFS,
        name="srp",
        paper="Hao et al. 2023a, AAAI (SRP), arXiv 2302.02091",
        neuron=NeuronRule("masked", start=0.5, probe=4),
        readout=Readout(delay=4),
    ),
    replace(
        _QCFS,
        name="cos",
        paper="Hao et al. 2023b, ICLR (COS), arXiv 2302.10685",
        neuron=NeuronRule("offset", start=0.5, probe=4),
    ),
    replace(
        _QCFS,
        name="group_neuron",
        paper="Lyu et al. 2024 (group neuron), arXiv 2402.19061",
        neuron=NeuronRule(start=0.5, members=4),
    ),
    Recipe(
        "snm",
        "Wang et al. 2022, IJCAI (signed neuron with memory)",
        source=_RELUS,
        statistic=Statistic("max"),
        neuron=NeuronRule("signed", negative=1.0),
    ),
    Recipe(
        "inference_scale",
        "Bu et al. 2025, CVPR (inference-scale conversion, local threshold balancing)",
        source=_RELUS,
        statistic=Statistic("local_balance", batch_size=8, iterations=None),
        granularity="channel",
        neuron=NeuronRule(start=0.5, strict=True),
    ),
    Recipe(
        "few_spikes",
        "Stoeckl & Maass 2021, Nature Machine Intelligence 3 (FS-neurons), arXiv 2002.00860",
        source=(*_RELUS, *_CODED),
        statistic=Statistic("reach", scale=1.25),
        neuron=NeuronRule("few_spikes"),
        encoding=Encoding("impulse", bias="once"),
    ),
    Recipe(
        "ttfs",
        "Stanojevic et al. 2023, arXiv 2212.12522 (exact time to first spike)",
        source=_RELUS,
        statistic=Statistic("max"),
        neuron=NeuronRule("first_spike"),
        encoding=Encoding("impulse", bias="once"),
    ),
    Recipe(
        "tandem",
        "Wu et al. 2021, IEEE TPAMI 44(11) (progressive tandem learning), arXiv 2007.01204; "
        "the conversion alone: rheobase.convert.progressive_tandem trains with it",
        source=_RELUS,
        statistic=Statistic("percentile", percentile=99.9, shared_by_steps=True),
        encoding=Encoding("impulse", bias="spread"),
    ),
    Recipe(
        "hybrid",
        "Rathi et al. 2020, ICLR, arXiv 2005.01807; train the network further as any other",
        source=_RELUS,
        statistic=Statistic("max_current", scale=0.7),
        neuron=NeuronRule("stdb", strict=True, delayed=True),
        encoding=Encoding("poisson"),
    ),
    Recipe(
        "rnl",
        "Ding et al. 2021, IJCAI (rate norm layer), arXiv 2105.11654",
        source=("rate_norm",),
        statistic=Statistic("learned"),
        needs=("training",),
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipes() -> list[Recipe]:
    """Every recipe, with its paper and what it needs.

    >>> [one.name for one in recipes() if "training" not in one.needs][:3]
    ['diehl_model', 'diehl_data', 'rueckauer']
    """
    return list(RECIPES.values())
