"""The survey's experiments: what they find on data of the package, and what they write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheobase.data import get_dataset
from rheobase.experiments import kept_runs, studies
from rheobase.experiments.step_study import StepResults, StepStudy
from rheobase.experiments.studies import STUDIES, run_study
from rheobase.experiments.surrogate_study import SurrogateResults, SurrogateStudy
from rheobase.models import create_model
from rheobase.train import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def configured(recipe: tuple[str, ...]):
    file, *settings = recipe
    return load_config(CONFIGS / file, settings)


@pytest.fixture
def trained(monkeypatch) -> Iterator[list[str]]:
    """The models of the runs that were trained or read."""
    train, names = kept_runs.train, []

    def count(cfg):
        names.append(cfg.model.name)
        return train(cfg)

    monkeypatch.setattr(kept_runs, "train", count)
    return names


def shortened(name: str, monkeypatch, **changed: object) -> None:
    monkeypatch.setitem(studies.STUDIES, name, dataclasses.replace(STUDIES[name], **changed))


def run(name: str, folder: Path, *overrides: str, **options: int):
    return run_study(
        name, configs=CONFIGS, folder=folder, overrides=overrides, report=lambda _: None, **options
    )


def test_a_converted_network_comes_nearer_with_every_step(tmp_path, monkeypatch, trained) -> None:
    """The first experiment, in short: accuracy rises with T up to the ordinary network's."""
    shortened(
        "e1_conversion_curve", monkeypatch, conversions=("rueckauer", "burst"), steps=(1, 4, 32)
    )
    found = run("e1_conversion_curve", tmp_path, "epochs=3")
    assert isinstance(found, StepResults) and found.tested == 500
    assert found.ann > 90.0
    slow, quick = (found.curves[f"converted: {name}"] for name in ("rueckauer", "burst"))
    assert slow[1] < 60.0 < slow[32]
    assert quick[32] > found.ann - 3.0
    assert quick[4] > slow[4]
    written = tmp_path / "e1_conversion_curve"
    assert json.loads((written / "results.json").read_text())["ann"] == found.ann
    assert (written / "table.md").read_text() == found.table()
    assert "<svg" in (written / "page.html").read_text()
    folders = {path.name for path in tmp_path.iterdir()}
    trained.clear()
    assert run("e1_conversion_curve", tmp_path, "epochs=3") == found
    assert {path.name for path in tmp_path.iterdir()} == folders  # no further run


def test_a_single_head_reads_digits(tmp_path, monkeypatch) -> None:
    """The third experiment, in short: one head learns, and its ordinary twin is beside it."""
    study = STUDIES["e3_single_head_transformer"]
    assert isinstance(study, StepStudy)
    one = {"one head": study.direct["one head"]}
    shortened("e3_single_head_transformer", monkeypatch, direct=one)
    short = ("epochs=2", "data.train_images=2500", "schedule.warmup_epochs=0")
    found = run("e3_single_head_transformer", tmp_path, *short)
    assert isinstance(found, StepResults)
    assert found.curves["one head"][2] > 50.0 and found.ann > 50.0
    assert configured(one["one head"]).model.overrides["heads"] == 1


def test_networks_trained_for_their_steps_beside_converted_ones(tmp_path, monkeypatch) -> None:
    """The third check, in short: few steps are those of a network that was trained for them."""
    study = STUDIES["e6_latency_accuracy"]
    assert isinstance(study, StepStudy)
    assert [configured(r).model.overrides["T"] for r in study.direct.values()] == [1, 2, 4, 8]
    direct = {"direct": study.direct["trained directly, T = 2"]}
    shortened(
        "e6_latency_accuracy", monkeypatch, direct=direct, conversions=("rueckauer",), steps=(2,)
    )
    found = run("e6_latency_accuracy", tmp_path, "epochs=3")
    assert isinstance(found, StepResults)
    assert sorted(found.curves["direct"]) == [1, 2]
    assert found.curves["direct"][2] > found.curves["converted: rueckauer"][2] + 20.0


@pytest.mark.parametrize("name", ["e2_direct_vs_converted", "e6_latency_accuracy"])
def test_both_sides_have_the_same_layers_data_and_epochs(name: str) -> None:
    """Else their accuracies would say nothing of spikes."""
    study = STUDIES[name]
    assert isinstance(study, StepStudy)
    ann = configured(study.ann)
    ordinary = create_model(ann.model.name, **ann.model.overrides)
    for recipe in study.direct.values():
        direct = configured(recipe)
        spiking = create_model(direct.model.name, **direct.model.overrides)
        weights = [
            [p.shape for p in net.parameters() if p.dim() > 1] for net in (ordinary, spiking)
        ]
        assert weights[0] == weights[1]
        for part in ("data", "augment", "optim", "schedule", "epochs"):
            assert getattr(direct, part) == getattr(ann, part)


@pytest.mark.long
def test_direct_and_converted_on_cifar10(tmp_path, monkeypatch) -> None:
    """The second experiment, in short: a few steps do for the one, and not for the other."""
    try:
        get_dataset("cifar10", train=False)
    except (FileNotFoundError, OSError) as error:
        pytest.skip(f"CIFAR-10 cannot be had here: {error}")
    shortened("e2_direct_vs_converted", monkeypatch, conversions=("rueckauer",), steps=(4,))
    found = run("e2_direct_vs_converted", tmp_path, "epochs=3")
    assert isinstance(found, StepResults)
    assert found.curves["trained directly, T = 4"][4] > 30.0
    assert found.curves["converted: rueckauer"][4] < found.curves["trained directly, T = 4"][4]


def test_surrogates_are_compared_over_seeds(tmp_path, monkeypatch) -> None:
    """The second check, in short: a gradient that reaches few membranes teaches less."""
    study = STUDIES["e5_surrogate_study"]
    assert isinstance(study, SurrogateStudy) and len(study.recipes) > 1
    shortened(
        "e5_surrogate_study",
        monkeypatch,
        recipes={"digits": study.recipes["MNIST digits"]},
        surrogates={"arctan": "ATan", "needle": "{name: Rectangular, alpha: 500.0}"},
    )
    found = run("e5_surrogate_study", tmp_path, "epochs=2", "data.train_images=2000", seeds=2)
    assert isinstance(found, SurrogateResults)
    curves = found.curves["digits"]
    assert [len(row) for row in curves["arctan"]] == [2, 2]
    assert min(row[-1] for row in curves["arctan"]) > max(row[-1] for row in curves["needle"])
    assert "| arctan |" in found.table() and "± " in found.table()
    assert (tmp_path / "e5_surrogate_study" / "page.html").read_text().count("<svg") == 1


def test_every_surrogate_and_recipe_of_the_study_builds() -> None:
    study = STUDIES["e5_surrogate_study"]
    assert isinstance(study, SurrogateStudy)
    for recipe in study.recipes.values():
        for surrogate in study.surrogates.values():
            neuron = f"model.overrides.neuron_kwargs={{{study.neuron}, surrogate: {surrogate}}}"
            cfg = configured((recipe, neuron))
            create_model(cfg.model.name, **cfg.model.overrides)


def test_near_is_for_good() -> None:
    curve = {1: 50.0, 2: 99.5, 4: 98.0, 8: 99.2, 16: 99.0}
    found = StepResults("", 500, 100.0, {"a": curve, "b": {1: 10.0}}, {})
    assert (found.near("a"), found.near("b")) == (8, None)


def test_unknown_experiments_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="did you mean 'e1_conversion_curve'"):
        run_study("e1_conversion", folder=tmp_path)
    with pytest.raises(ValueError, match="seeds=0"):
        run_study("e5_surrogate_study", folder=tmp_path, seeds=0)
