"""The zoo's recipes fit their models; the experiment trains, measures, writes, and resumes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rheobase.experiments.zoo import run_zoo, twin_of
from rheobase.models import create_model, model_family
from rheobase.neurons import Neuron
from rheobase.train import load_config

CONFIGS = Path(__file__).parents[2] / "configs" / "zoo"
RECIPES = {path.stem: load_config(path) for path in sorted(CONFIGS.glob("*.yaml"))}


def test_at_least_ten_families_have_one_budget() -> None:
    assert len({model_family(cfg.model.name) for cfg in RECIPES.values()}) >= 10
    plain = [dataclasses.asdict(cfg) | {"run": "", "model": ""} for cfg in RECIPES.values()]
    assert all(recipe == plain[0] for recipe in plain)


@pytest.mark.parametrize("name", RECIPES)
def test_network_and_twin_of_a_recipe(name: str) -> None:
    cfg = RECIPES[name]
    assert cfg.run == f"runs/zoo/{name}"
    with torch.device("meta"):
        net = create_model(cfg.model.name, **cfg.model.overrides)
        twin_cfg, twin = twin_of(cfg)
    assert (net.config.image_size, net.config.num_classes) == (32, 10)
    assert sum(p.numel() for p in net.parameters()) < 3e6
    assert not any(isinstance(module, Neuron) for module in twin.modules())
    assert any(isinstance(module, nn.ReLU) for module in twin.modules())
    assert twin_cfg.run == f"{cfg.run}_twin" and twin.T == 1


DIGITS = """
run: {folder}/runs/digits
device: cpu
epochs: 1
model:
  name: spikformer_mnist_2_64
  overrides: {{depth: 1, dim: 16, heads: 2, T: 2}}
data:
  name: mnist_sample
  batch_size: 500
log:
  progress: never
"""


@pytest.mark.long
def test_it_trains_measures_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits.yaml").write_text(DIGITS.format(folder=tmp_path))
    table = tmp_path / "zoo.md"
    run_zoo(tmp_path, table)
    row = json.loads((tmp_path / "runs" / "digits" / "measured.json").read_text())
    assert row["parameters"] == sum(
        p.numel() for p in create_model(row["model"], **row["overrides"]).parameters()
    )
    assert 0.0 <= row["accuracy"] <= 1.0 and 0.0 <= row["twin"]["accuracy"] <= 1.0
    # The first layer's MACs are charged once; everything behind it by its spikes.
    assert row["energy_uj"] == pytest.approx((4.6 * row["macs"] + 0.9 * row["sops"]) / 1e6)
    assert row["twin"]["energy_uj"] == pytest.approx(4.6 * row["twin"]["macs"] / 1e6)
    assert row["step_ms"] > 0 and row["memory_mib"] >= 0
    layers = {"stem.stages.0.neuron", "blocks.0.attn.neuron", "blocks.0.mlp.fc2.neuron"}
    assert layers <= set(row["rates"])

    text = table.read_text()
    assert f"| digits | {row['accuracy']:.1%} | {row['twin']['accuracy']:.1%} |" in text
    dead = [layer for layer, rate in row["rates"].items() if rate < 0.01]
    assert (f"dead: {', '.join(dead)}." in text) == bool(dead)

    assert "trained on all training images of CIFAR-10 (1 epoch, batches of 500, " in text

    run_zoo(tmp_path, tmp_path / "part.md", ["digits"], ["data.train_images=500"])
    assert (tmp_path / "runs" / "digits_500" / "measured.json").exists()
    part = (tmp_path / "part.md").read_text()
    assert "the first 500 training images" in part
    assert "`python -m rheobase.experiments.zoo data.train_images=500`" in part

    monkeypatch.setattr("rheobase.experiments.zoo.train", None)  # nothing is trained again
    run_zoo(tmp_path, table, ["digits"])
    assert table.read_text() == text
    run_zoo(tmp_path, table, costs=True)
    again = json.loads((tmp_path / "runs" / "digits" / "measured.json").read_text())
    assert again != row and {**again, "step_ms": 0, "memory_mib": 0} == {
        **row, "step_ms": 0, "memory_mib": 0,
    }  # fmt: skip
    (tmp_path / "later.yaml").write_text(DIGITS.format(folder=tmp_path / "later"))
    run_zoo(tmp_path, table, ["digits"])
    assert "Not trained at this budget yet: later." in table.read_text()
    with pytest.raises(FileNotFoundError, match=r"no .*digit\.yaml; known: digits"):
        run_zoo(tmp_path, table, ["digit"])
