"""Operation counts and energies held to recorded figures of papers and of SpikingJelly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.measure import OperationReport, count_operations, energy, lemaire
from rheobase.measure.lemaire import lemaire_counts, neuron_counts
from rheobase.neurons import LIF

GOLDENS = Path(__file__).parents[1] / "goldens" / "hardware"
pytestmark = pytest.mark.golden


class Recorded(nn.Module):
    """The golden's three layers, fed with the spikes that it recorded between them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        arrays = np.load(GOLDENS / "energy_small_net.npz")
        self.c1 = nn.Conv2d(2, 4, 3, padding=1)
        self.c2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.f = nn.Linear(96, 10)
        self.x = torch.from_numpy(arrays[f"x_{kind}"])
        self.spikes1 = torch.from_numpy(arrays[f"{kind}_layer1_spikes"])
        self.spikes2 = torch.from_numpy(arrays[f"{kind}_layer2_spikes"])

    def forward(self, x: Tensor) -> Tensor:
        over_time(x, self.c1)
        over_time(self.spikes1, self.c2)
        return over_time(self.spikes2.flatten(2), self.f)


def recorded(kind: str) -> tuple[dict, OperationReport]:
    net = Recorded(kind)
    report = count_operations(net, net.x)
    golden = json.loads((GOLDENS / "energy_small_net.json").read_text())[f"own_{kind}"]
    assert (report.steps, report.images) == (5, 3)
    return golden, report


@pytest.mark.parametrize("kind", ["analog", "spike"])
def test_macs_rates_and_sops_of_every_layer(kind: str) -> None:
    golden, report = recorded(kind)
    assert [layer.name for layer in report.layers] == ["c1", "c2", "f"]
    assert [layer.first for layer in report.layers] == [True, False, False]
    for layer in report.layers:
        assert layer.macs == golden["paper"][layer.name]["flops"]
        assert layer.steps == 5
        assert layer.spiking.rate == pytest.approx(golden[layer.name]["rate"], rel=1e-12)
        assert layer.sops == pytest.approx(golden["paper"][layer.name]["sop"], rel=1e-12)


def test_counts_of_the_whole_tensor() -> None:
    """The table of the energy survey, column "paper": all 5 steps of all 3 images."""
    analog, spike = recorded("analog")[1].layers, recorded("spike")[1].layers
    assert analog[0].operands[0].values == "analog"
    assert analog[0].macs * 5 * 3 == 69_120 and analog[0].macs == 4_608
    assert spike[0].operands[0].values == "spikes"
    per_layer = json.loads((GOLDENS / "energy_per_layer.json").read_text())
    for layers, key, sops in [
        (spike, "spike.c1", 14_220),
        (analog, "analog.c2", 9_747),
        (analog, "analog.f", 1_870),
    ]:
        layer = next(layer for layer in layers if layer.name == key.split(".")[1])
        assert layer.sops * 3 == pytest.approx(sops, rel=1e-12)
        assert layer.spiking.nonzero == per_layer[key]["nnz"]
        assert layer.spiking.size == per_layer[key]["numel_in"]


def test_energy_of_an_analog_input() -> None:
    golden, report = recorded("analog")
    once = golden["paper_energy_pJ_first_layer_MAC_once"]
    every_step = golden["paper_energy_pJ_first_layer_MAC_xT"]
    assert energy(report).pj == pytest.approx(once, rel=1e-12)
    assert energy(report, "paper_every_step").pj == pytest.approx(every_step, rel=1e-12)


def test_energy_of_an_event_input_is_all_additions() -> None:
    golden, report = recorded("spike")
    charged = energy(report)
    assert charged.macs == 0
    assert charged.pj == pytest.approx(golden["paper_energy_pJ_all_AC"], rel=1e-12)


@pytest.mark.parametrize("kind", ["analog", "spike"])
def test_synapses_reached_are_exact(kind: str) -> None:
    """Without the zero padding; what the counter of SpikingResformer charges."""
    golden, report = recorded(kind)
    for layer in report.layers:
        assert layer.events == pytest.approx(golden[layer.name]["eff"], rel=1e-12)
        synapses = layer.connections.synapses
        assert synapses * 5 == pytest.approx(golden[layer.name]["dense"], rel=1e-12)
    charged = energy(report, "ac_only")
    expected = sum(golden[layer.name]["eff"] for layer in report.layers)
    assert charged.acs == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["analog", "spike"])
def test_energy_with_memory_is_that_of_spikingjelly(kind: str) -> None:
    per_layer = json.loads((GOLDENS / "energy_per_layer.json").read_text())
    charged = energy(recorded(kind)[1], "spikingjelly")
    for layer in charged.layers:
        golden = per_layer[f"{kind}.{layer.layer.name}"]["sj_simple"]
        assert 3 * layer.macs == golden["n_mac"]
        assert 3 * layer.acs == pytest.approx(golden["n_synop"], rel=1e-12)
        assert 3 * layer.moved == pytest.approx(golden["n_memory_access_bytes"], rel=1e-12)
        # It charges additions of its own counting, one a convolution's output channel, besides.
        others = 0.9 * (golden["n_ac"] - golden["n_synop"])
        assert 3 * layer.pj == pytest.approx(golden["total"] - others, rel=1e-12)


@pytest.mark.parametrize("kind", ["analog", "spike"])
def test_lemaires_energy_of_every_layer(kind: str) -> None:
    """All 3 images and 5 steps are one call there, and its buffers hold all of that."""
    per_layer = json.loads((GOLDENS / "energy_per_layer.json").read_text())
    for layer in recorded(kind)[1].layers:
        golden = per_layer[f"{kind}.{layer.name}"]["sj_lemaire"]
        counts, links = lemaire_counts(layer), layer.connections
        again = 24.0 * (golden["n_mac"] > 0)  # we compute a filter's addresses for each image
        for ours, theirs in [
            (counts.macs, golden["n_mac"]),
            (counts.acs, golden["n_ac"]),
            (counts.address_acs - again, golden["n_acc_addr"]),
            (counts.address_macs, golden["n_mac_addr"]),
            (counts.reads, golden["n_read_in_bytes"] / 4),
            (counts.writes, golden["n_write_out_bytes"] / 4),
            (counts.parameters, golden["n_read_params_bytes"] / 4),
            (counts.potentials, golden["n_read_potential_bytes"] / 4),
        ]:
            assert 3 * ours == pytest.approx(theirs, rel=1e-12)
        assert 3 * counts.operations_pj == pytest.approx(golden["ops_pj"], rel=1e-12)
        inputs = 4000 if golden["n_mac"] == 0 else 4 * layer.operands[0].size
        outputs = 4 * 15 * np.prod(links.outputs)
        parameters = 4 * (links.weights + (links.outputs[0] if links.bias else 0))
        memory = counts.memory_pj(inputs, outputs, parameters, outputs)
        assert 3 * memory == pytest.approx(golden["memory_pj"], rel=1e-12)


class WithNeurons(nn.Module):
    """The same layers with SpikingJelly's neurons, whose reset acts at once."""

    def __init__(self) -> None:
        super().__init__()
        arrays = np.load(GOLDENS / "energy_small_net.npz")
        self.net = Recorded("analog")
        for name, layer in (("1", self.net.c1), ("2", self.net.c2), ("3", self.net.f)):
            layer.weight.data = torch.from_numpy(arrays[f"W{name}"])
            if layer.bias is not None:
                layer.bias.data = torch.from_numpy(arrays[f"b{name}"])
        tau, threshold = 1 / (1 - float(arrays["beta"])), float(arrays["thr"])
        self.neurons = nn.ModuleList(
            LIF(tau, decay_input=False, v_reset=None, v_threshold=threshold) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.neurons
        x = first(over_time(x, self.net.c1))
        x = second(over_time(x, self.net.c2))
        return third(over_time(x.flatten(2), self.net.f))


@pytest.mark.parametrize("kind", ["analog", "spike"])
def test_a_network_with_its_neurons_is_charged_as_by_spikingjelly(kind: str) -> None:
    golden = json.loads((GOLDENS / "energy_small_net.json").read_text())
    x = torch.from_numpy(np.load(GOLDENS / "energy_small_net.npz")[f"x_{kind}"])
    report = count_operations(WithNeurons(), x)
    assert report.neuron_count == 256 + 96 + 10
    charged, simple = energy(report, "spikingjelly"), golden[f"sj_simple_{kind}"]["counts"]
    assert 3 * charged.macs == simple["mac"]
    assert 3 * charged.acs == pytest.approx(simple["synop"], rel=1e-12)
    moved = charged.memory_pj / charged.convention.pj_per_byte
    assert 3 * moved == pytest.approx(simple["memory_access_bytes"], rel=1e-12)
    theirs = golden[f"sj_lemaire_{kind}"]
    layers = [lemaire_counts(layer) for layer in report.layers]
    counts = [*layers, *map(neuron_counts, report.neurons)]
    for name, field in [("mac", "macs"), ("ac", "acs"), ("mac_addr", "address_macs")]:
        ours = sum(getattr(count, field) for count in counts)
        assert 3 * ours == pytest.approx(theirs["counts"][name], rel=1e-12)
    potentials = sum(count.potentials for count in counts)
    assert 12 * potentials == pytest.approx(theirs["counts"]["read_potential_bytes"], rel=1e-12)
    total = lemaire(report)
    assert 3 * total.operations_pj == pytest.approx(theirs["breakdown"]["ops_pj"], rel=1e-12)
    # Its buffers hold 3 images, and all their steps of an input that is no spikes.
    memory = 0.0
    for layer in report.layers:
        links, values = layer.connections, layer.operands[0]
        parameters = links.weights + (links.outputs[0] if links.bias else 0)
        memory += replace(lemaire_counts(layer), writes=0.0).memory_pj(
            4000 if values.values == "spikes" else 4 * values.size,
            0,
            4 * parameters,
            4 * 3 * np.prod(links.outputs),
        )
    for neurons in report.neurons:
        memory += neuron_counts(neurons).memory_pj(0, 4000, 0, 4 * 3 * neurons.updates / 5)
    assert 3 * memory == pytest.approx(theirs["breakdown"]["memory_pj"], rel=1e-12)
    assert 3 * total.memory_pj < theirs["breakdown"]["memory_pj"]
