"""The experiments that the survey's summary asks for, as records, and what runs one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rheobase._errors import unknown_name
from rheobase._paths import write_text
from rheobase.experiments.step_study import StepResults, StepStudy, run_step_study
from rheobase.experiments.surrogate_study import (
    SurrogateResults,
    SurrogateStudy,
    run_surrogate_study,
)

__all__ = ["STUDIES", "run_study"]

_STEPS = (1, 2, 4, 8, 16, 32, 64)
_DIGITS = ("ann_vgg8_mnist_small.yaml",)
_DIRECT = "direct_vgg8_mnist_small.yaml"

STUDIES: dict[str, StepStudy | SurrogateStudy] = {
    "e1_conversion_curve": StepStudy(
        "First experiment of the survey's summary: a simple CNN is converted on MNIST; accuracy "
        "against time steps.",
        _DIGITS,
        module="rheobase.models.ann_vgg:mnist_vgg8",
        conversions=("rueckauer", "rmp", "threshold_relu", "calibration_light", "burst"),
        steps=_STEPS,
    ),
    "e2_direct_vs_converted": StepStudy(
        "Second experiment: a small network is trained directly, by surrogate gradients, on "
        "CIFAR-10, and compared with one that was converted.",
        ("ann_vgg8_cifar10_small.yaml",),
        {"trained directly, T = 4": ("direct_vgg8_cifar10_small.yaml",)},
        "rheobase.models.ann_vgg:cifar_vgg8",
        ("rueckauer", "threshold_relu", "calibration_light"),
        _STEPS,
    ),
    "e3_single_head_transformer": StepStudy(
        "Third experiment: a spiking transformer with a single attention head, on a small task of "
        "image classification; beside it one of four heads, and its ordinary twin.",
        ("spikformer_one_head_mnist_small.yaml", "model.name=spikformer_ann_mnist_2_64"),
        {
            "one head": ("spikformer_one_head_mnist_small.yaml",),
            "four heads": ("spikformer_one_head_mnist_small.yaml", "model.overrides.heads=4"),
        },
    ),
    "e5_surrogate_study": SurrogateStudy(
        "Second check of the survey's summary: what surrogate functions do to training's "
        "convergence and final accuracy, on several data sets.",
        {
            "MNIST digits": "surrogates_mnist_small.yaml",
            "CIFAR-10": "surrogates_cifar10_small.yaml",
        },
        "tau: 2.0",
        {
            "arctan, alpha 2": "ATan",
            "sigmoid, alpha 4": "Sigmoid",
            "triangle": "Triangular",
            "rectangle": "Rectangular",
            "fast sigmoid, alpha 1": "SuperSpike",
            "Gaussian": "Gaussian",
        },
    ),
    "e6_latency_accuracy": StepStudy(
        "Third check: accuracy against latency of networks that were converted and of such trained "
        "directly, each for its own number of steps, to see from which T on they can be deployed.",
        _DIGITS,
        {
            f"trained directly, T = {steps}": (_DIRECT, f"model.overrides.T={steps}")
            for steps in (1, 2, 4, 8)
        },
        "rheobase.models.ann_vgg:mnist_vgg8",
        ("rueckauer", "calibration_light", "burst"),
        _STEPS,
    ),
}
"""Those of one network beside its twin (`e4_energy_side_by_side`) are ``rheobase demo``."""


def run_study(
    name: str,
    *,
    configs: str | Path = "configs",
    folder: str | Path = "runs/studies",
    seeds: int = 1,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> StepResults | SurrogateResults:
    """Run an experiment, or what is missing of it.

    Writes ``NAME/results.json``, ``NAME/table.md`` and ``NAME/page.html`` into ``folder``.

    Args:
        name: of `STUDIES`.
        configs: folder of the recipes.
        folder: holds runs, which experiments share, and results.
        seeds: runs of each network, in an experiment over surrogates; the others take one.
        overrides: ``key=value`` settings of every run, such as ``epochs=1``.
        report: called with a line for each network.

    Raises:
        ValueError: an unknown name (the nearest is offered), or no seed.
        FileNotFoundError: a recipe is not there.
    """
    if name not in STUDIES:
        raise ValueError(unknown_name("experiment", name, STUDIES))
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: at least one run of each")
    study, folder, configs = STUDIES[name], Path(folder), Path(configs)
    results: StepResults | SurrogateResults
    if isinstance(study, StepStudy):
        results = run_step_study(study, folder, configs, overrides, report)
    else:
        results = run_surrogate_study(study, folder, configs, overrides, report, seeds)
    written = folder / name
    write_text(written / "results.json", json.dumps(dataclasses.asdict(results), indent=1))
    write_text(written / "table.md", results.table())
    write_text(written / "page.html", results.page(name))
    return results
