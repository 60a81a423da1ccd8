"""Every rule by its name, as the command line runs it, on real digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from rheobase import cli
from rheobase.learn import RULES
from rheobase.train import train_from_config

# Rule, settings besides its name, and the accuracy that it has to reach (chance is 10 %).
RUNS = [
    ("truncated_bptt", "model.name=spiking_mlp_mnist", 0.8),
    ("sltt", "model.name=spiking_mlp_mnist rule.options.k=2", 0.8),
    ("ottt", "model.name=spiking_mlp_mnist", 0.8),
    ("ottt", "model.name=spiking_mlp_mnist rule.options.every_step=true", 0.8),
    ("eqprop", "model.name=equilibrium_mnist optim.name=sgd optim.lr=0.1", 0.8),
    ("eqprop", "model.name=equilibrium_spiking_mnist optim.name=sgd optim.lr=0.1", 0.7),
    ("forward_forward", "model.name=forward_forward_mnist optim.lr=3e-3", 0.6),
    ("tempotron", "model.name=tempotron_mnist", 0.7),
    ("bptt", "model.name=spiking_mlp_mnist model.overrides.neuron=tandem_if", 0.8),
    ("bptt", "model.name=spiking_mlp_mnist model.overrides.neuron=dsr_if", 0.8),
]


# A network for every rule.
MODELS = {
    "truncated_bptt": "spiking_mlp_mnist",
    "sltt": "spiking_mlp_mnist",
    "ottt": "spiking_mlp_mnist",
    "eprop": "eprop_mnist",
    "superspike": "superspike_mnist",
    "decolle": "decolle_mnist",
    "tempotron": "tempotron_mnist",
    "resume": "resume_mnist",
    "stdp": "spiking_mlp_mnist",
    "r_stdp": "spiking_mlp_mnist",
    "forward_forward": "forward_forward_mnist",
    "eqprop": "equilibrium_mnist",
    "spikeprop": "spikeprop_mnist",
}


def run(folder: Path, rule: str, settings: str, epochs: int) -> float:
    file = folder / "run.yaml"
    file.write_text(
        "device: cpu\ndata: {name: mnist_sample, batch_size: 50}\n"
        "optim: {name: adamw, lr: 1e-3, weight_decay: 0.0}\nlog: {progress: never}\n"
    )
    words = [f"run={folder / 'run'}", f"rule.name={rule}", f"epochs={epochs}", *settings.split()]
    return train_from_config(file, words).accuracy


def test_a_rule_runs_by_its_name(tmp_path: Path) -> None:
    settings = "model.name=equilibrium_mnist optim.name=sgd optim.lr=0.1"
    assert run(tmp_path, "eqprop", settings, epochs=1) > 0.8


@pytest.mark.long
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_runs_from_the_command_line(rule: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("")
    words = [
        f"run={tmp_path}", f"train.rule={rule}", f"model.name={MODELS[rule]}", "device=cpu",
        "epochs=1", "data.train_images=100", "data.batch_size=50", "log.progress=never",
    ]  # fmt: skip
    assert cli.main(["train", str(file), *words]) == 0
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 3


@pytest.mark.long
@pytest.mark.parametrize(("rule", "settings", "accuracy"), RUNS)
def test_a_rule_learns_digits(tmp_path: Path, rule: str, settings: str, accuracy: float) -> None:
    assert run(tmp_path, rule, settings, epochs=2) > accuracy
