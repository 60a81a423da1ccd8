"""``rheobase cost``: what it prints is what was measured, of trained and of untrained networks."""

from __future__ import annotations

import re

import pytest
import torch

from rheobase import cli
from rheobase._text import si
from rheobase.data import MNISTSample
from rheobase.measure import CONVENTIONS, count_operations, energy
from rheobase.models import create_model
from rheobase.models.saved import save_model

TINY = {"depth": 1, "dim": 8, "heads": 2, "T": 2}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    net = create_model("spikformer_mnist_2_64", **TINY).eval()
    with torch.no_grad():  # so that it fires
        for parameter in net.parameters():
            parameter.mul_(4.0)
    path = tmp_path / "tiny.safetensors"
    save_model(net, path, "spikformer")
    return net, path


def test_a_models_file_on_digits(saved, capsys):
    net, path = saved
    assert cli.main(["cost", str(path), "--images", "8"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"{path}, one of 8 images, T = 2\n")
    digits = MNISTSample(train=False)
    report = count_operations(net, torch.stack([digits[i][0] for i in range(8)]))
    for layer in report.layers:
        (row,) = re.findall(rf"^{re.escape(layer.name)} .*$", page, re.MULTILINE)
        assert f"{layer.macs:,}" in row and f"{layer.sops:,.0f}" in row
    for name in set(CONVENTIONS) - {"ann"}:
        (row,) = re.findall(rf"^{name}  .*$", page, re.MULTILINE)
        assert f" {si(energy(report, name).pj * 1e-12)}J " in row
        assert f"{name}: {CONVENTIONS[name].statement}" in page
    for metric in (
        "latency", "energy-delay product", "spiking throughput", "energy per spike",
        "latency-energy", "power per inference", "connectivity efficiency", "synaptic memory",
    ):  # fmt: skip
        assert re.search(rf"^{metric}  +[\d.]+ ?\S+", page, re.MULTILINE), metric
    assert f"{report.synapses:,} synapses" in page


def test_a_registered_model_is_untrained_and_takes_settings(capsys):
    words = ["cost", "spikformer_mnist_2_64", f"model.overrides={TINY}", "--images", "2"]
    assert cli.main(words) == 0
    assert "T = 2 (untrained: how often its neurons fire is chance" in capsys.readouterr().out


def test_a_network_without_neurons_is_charged_as_an_ordinary_one(capsys):
    words = ["cost", "spikformer_ann_mnist_2_64", "model.overrides={depth: 1}", "--images", "2"]
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert "this network, in" in page and "energy counted under ann" in page
    assert (
        "breaks even" not in page and "spikingjelly" not in page and "bit activations" not in page
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no_such_run"], "no_such_run is neither a run, nor a model's file, nor a name"),
        (["spikformer_mnist_2_64", "--images", "0"], "--images is at least 1, got 0"),
        (["spikformer_mnist_2_64", "data.nam=x"], "did you mean 'data.name'"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message, capsys):
    assert cli.main(["cost", *words]) == 2
    assert message in capsys.readouterr().err
