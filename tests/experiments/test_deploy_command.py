"""``rheobase deploy``: a network that reads digits, on each of the chips."""

from __future__ import annotations

import re

import pytest
import torch

from rheobase import cli
from rheobase._text import si
from rheobase.deploy import CHIPS, Circuit, circuit_of, estimate, map_circuit
from rheobase.deploy.rounding import answers_kept, round_weights, rounded
from rheobase.experiments.measured import load_measured
from rheobase.train import train_from_config

TINY = "model.overrides={features: 8/2 12/2 8/2, channels: 1, image_size: 28, T: 4, neuron: if}"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A small network of IF neurons, trained for a few steps on real digits."""
    folder = tmp_path_factory.mktemp("deploy") / "run"
    config = folder.parent / "config.yaml"
    config.write_text(
        f"run: {folder}\ndevice: cpu\nepochs: 1\nmodel: {{name: vggsnn}}\n"
        "data: {name: mnist_sample, batch_size: 50, train_images: 1000, mean: [0.1307], "
        "std: [0.3081]}\noptim: {name: adamw, lr: 5e-3}\nlog: {progress: never}\n"
    )
    train_from_config(config, [TINY])
    return str(folder)


@pytest.mark.parametrize("chip", list(CHIPS))
def test_a_trained_network_on_digits(run: str, chip: str, capsys) -> None:
    assert cli.main(["deploy", run, "--chip", chip, "--images", "20"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"{run} on {CHIPS[chip].name} ({CHIPS[chip].paper}), T = 4\n")
    assert re.search(r"^It fits: \d+ of [\d,]+ cores", page, re.MULTILINE)
    assert "features.2 stays beside the chip" in page
    mapping = map_circuit(measured(run), CHIPS[chip])
    for one in mapping.placed:
        assert re.search(rf"^{one.population.name}  .* {one.cores:,}  ", page, re.MULTILINE)
    found = estimate(mapping)
    assert f"{found.synaptic_events:,.0f} synaptic events and {found.spikes:,.0f} spikes" in page
    assert found.synaptic_events > 1000
    assert re.search(rf"^energy +{re.escape(si(found.energy))}J$", page, re.MULTILINE)
    latency = "no latency: " if found.latency is None else f"{si(found.latency)}s\n"
    assert latency in page
    for charge in found.charges:
        assert charge.source in page
    assert re.search(r"layers rounded to \d+ bits, one step for each layer, \d+% of the", page)
    assert CHIPS[chip].sources in page


def measured(run: str) -> Circuit:
    net, x, trained = load_measured(run, [], 20)
    assert trained and x.shape == (20, 1, 28, 28)
    return circuit_of(net, x)


def test_coarser_weights_keep_fewer_answers(run: str) -> None:
    net, x, _ = load_measured(run, [], 200)
    layers = [name for name, m in net.named_modules() if isinstance(m, torch.nn.Conv2d)][1:]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    kept = [answers_kept(net, round_weights(net, x[:8], bits, layers), x) for bits in (16, 8, 4, 2)]
    assert kept[0] == 1.0 and kept[1] > 0.9 and kept[1] >= kept[3]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    made = round_weights(net, x[:8], 2, layers)
    for name in layers:
        assert made.get_submodule(name).weight.unique().numel() <= 3


def test_rounding_leaves_the_smallest_error_of_its_steps() -> None:
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    error = (rounded(weight, 4) - weight).square().sum()
    for step in weight.abs().max() * torch.arange(1, 41) / 40 / 7:
        other = (weight / step).round().clamp(-7, 7) * step
        assert error <= (other - weight).square().sum() + 1e-6
    assert torch.equal(rounded(torch.zeros(3), 4), torch.zeros(3))
    with pytest.raises(ValueError, match="at least 2 bits, got 1"):
        rounded(weight, 1)


def test_what_keeps_a_transformer_off_is_said(capsys) -> None:
    words = ["deploy", "spikformer_mnist_2_64", "model.overrides={T: 1, depth: 1}", "--images", "1"]
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert "It does not fit:\n  blocks.0.attn.neuron takes the product of activations" in page
    assert "(untrained: how often its neurons fire is chance" in page


def test_the_chips_are_listed(capsys) -> None:
    assert cli.main(["deploy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CHIPS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spikformer_mnist_2_64", "--chip", "loihi9"], "unknown chip 'loihi9'; did you mean"),
        (["spikformer_ann_mnist_2_64", "--images", "1"], "has no spiking neurons"),
    ],
)
def test_what_cannot_be_placed_is_refused(words, message, capsys) -> None:
    assert cli.main(["deploy", *words]) == 2
    assert message in capsys.readouterr().err


def test_many_chips_where_one_is_too_small(capsys) -> None:
    words = "model.overrides={features: 64 80/2 64/2, channels: 1, image_size: 28, T: 1}"
    assert cli.main(["deploy", "vggsnn", words, "--images", "1"]) == 0
    page = capsys.readouterr().out
    (chips, cores) = re.findall(
        r"^It does not fit one: it takes (\d+), with (\d+) cores of 128 each", page, re.MULTILINE
    )[0]
    assert int(chips) == -(-int(cores) // 128) > 1
