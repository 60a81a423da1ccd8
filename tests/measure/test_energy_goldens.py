"""Operation counts and energies held to the recorded figures of the "paper" convention."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.measure import count_operations, energy

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


def recorded(kind: str) -> tuple[dict, list]:
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
