"""The demo as users run it, but shorter: both networks learn, and the report tells what is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheobase.experiments.demo import FULL, run_demo

pytestmark = pytest.mark.long  # two minutes

EPOCHS = 3
MAC, AC = 4.6, 0.9  # picojoules


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a demo of few epochs found, on 5,000 real digits and 1,000 others."""
    folder: Path = tmp_path_factory.mktemp("demo")
    run_demo(folder, epochs=EPOCHS)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())["networks"]
    return found


def test_both_networks_read_digits(networks: dict[str, Any]) -> None:
    """In three epochs; after all twelve they read 98 and 99 of 100."""
    for network in networks.values():
        assert len(network["epochs"]) == EPOCHS
        right = sum(network["confusion"][i][i] for i in range(10))
        assert right == round(network["accuracy"] * FULL.test)
        assert network["accuracy"] > 0.85
        assert network["epochs"][-1]["accuracy"] == network["accuracy"]


def test_energy_and_time_side_by_side(networks: dict[str, Any]) -> None:
    """The twin pays every multiplication; the Spikformer those of its first layer, then spikes."""
    spiking, twin = networks["spiking"], networks["ordinary"]
    operations = linear_operations()
    assert [layer["macs"] for layer in twin["layers"]] == operations
    assert [layer["macs"] for layer in spiking["layers"]] == operations
    assert twin["energy"]["ann"]["pj"] == pytest.approx(MAC * sum(operations))
    first, *others = spiking["layers"]
    assert first["first"] and first["input"] == "analog"
    sops = sum(layer["rate"] * spiking["steps"] * layer["macs"] for layer in others)
    assert spiking["energy"]["paper"]["pj"] == pytest.approx(MAC * first["macs"] + AC * sops)
    assert 0 < spiking["energy"]["paper"]["pj"] < twin["energy"]["ann"]["pj"]
    for network in networks.values():
        assert all(0.0 < ms < 1000.0 for ms in network["milliseconds_per_image"].values())


def linear_operations() -> list[int]:
    """Multiplications of one image, at one step, layer by layer, of what both consist of."""
    dim, tokens = 96, 3 * 3  # of an image of 24 x 24, halved thrice
    square, product = dim * dim * tokens, tokens * tokens * dim
    sides_and_widths = [(24, 1, 12), (24, 12, 24), (12, 24, 48), (6, 48, 96), (3, 96, 96)]
    stem = [9 * inputs * outputs * side * side for side, inputs, outputs in sides_and_widths]
    attention = [square, square, square, product, product, square]
    return [*stem, *attention, 4 * square, 4 * square, dim * 10]
