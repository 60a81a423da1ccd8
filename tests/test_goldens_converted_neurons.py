"""Neurons of converted networks held to ECMT's and SpikeZIP's code, event by event."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rheobase.neurons import STBIF, MultiThreshold

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens"))
TRACES = FOLDER / "language" / "ecmt_neuron_traces.npz"
UNITS = FOLDER / "conversion" / "unit_neurons.npz"


def _load(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        pytest.skip(f"no {path.name} in this folder")
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def test_multi_threshold_traces() -> None:
    arrays = _load(TRACES)
    cases = [name.removesuffix("/params") for name in arrays if name.endswith("/params")]
    assert cases
    for case in cases:
        positive, negative, levels, base = arrays[f"{case}/params"].tolist()
        neuron = MultiThreshold(positive, v_negative=negative, levels=int(levels), base=base)
        spikes, v = neuron(arrays[f"{case}/x"], tap="v")
        # The file has one train for each threshold; at most one of them fires.
        assert torch.equal(spikes, arrays[f"{case}/fire_list_T_2N"].sum(1)), case
        assert torch.equal(v, arrays[f"{case}/mem"]), case


def test_st_bif_with_drain() -> None:
    arrays = _load(UNITS)
    cases = [name.removesuffix(".drain") for name in arrays if name.endswith(".drain")]
    assert cases
    for case in cases:
        expected = torch.cat([arrays[f"{case}.out"], arrays[f"{case}.drain"]])
        levels = int(case.rsplit("lev", 1)[1])
        lowest, highest = (-levels // 2, levels // 2 - 1) if "sym1" in case else (0, levels - 1)
        scale = expected.abs().max().item()
        x = torch.cat([arrays["x"], torch.zeros_like(arrays[f"{case}.drain"])])
        spikes = STBIF(scale, lowest=lowest, highest=highest)(x)
        assert torch.equal(spikes * scale, expected), case


def test_multi_threshold_units() -> None:
    arrays = _load(UNITS)
    for levels in (1, 3, 6):
        expected = arrays[f"ecmt.n{levels}.out"]
        smallest = expected[expected > 0.0].min().item(), -expected[expected < 0.0].max().item()
        neuron = MultiThreshold(smallest[0], v_negative=smallest[1], levels=levels)
        spikes, v = neuron(arrays["x"], tap="v")
        assert torch.equal(spikes, expected)
        assert torch.equal(v[-1], arrays[f"ecmt.n{levels}.v_end"])
