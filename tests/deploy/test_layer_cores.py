"""Layers on the cores of Speck, held to sinabs: every ``*speck_mapping*.json`` of the goldens."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rheobase.deploy import ConvLayer, LayerCores, map_layers

_ROOT = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parents[1] / "goldens"))
FILES = sorted((_ROOT / "hardware").glob("*speck_mapping*.json"))
CASES = [
    pytest.param(golden["constraints"], case, id=f"{file.stem}-{name}")
    for file in FILES
    for golden in [json.loads(file.read_text())]
    for name, case in golden["cases"].items()
]
pytestmark = pytest.mark.golden


@pytest.mark.parametrize(("constraints", "case"), CASES)
def test_memories_candidates_and_feasibility(constraints: dict, case: dict) -> None:
    chip = LayerCores(
        "as recorded",
        tuple(constraints["kernel_Ki"]),
        tuple(constraints["neuron_Ki"]),
        tuple(constraints["bias"]),
    )
    layers = [
        ConvLayer(c, f, (k, k), (height, width), stride, padding)
        for c, f, k, height, width, stride, padding in case["layers"]
    ]
    for layer, memory in zip(layers, case["mem"], strict=True):
        assert layer.kernel_words == memory["kernel"]
        assert layer.neuron_words == memory["neuron"]
        assert layer.bias_words == memory["bias"]
        assert [layer.outputs, *layer.output] == memory["out"]
    found = map_layers(layers, chip)
    assert [list(cores) for cores in found.candidates] == case["candidates"]
    assert found.feasible == case["feasible"]
    assert len(found.cores) == len(case["example_mapping"])  # as many as the flow there
    assert len(set(found.cores.values())) == len(found.cores)
    assert all(core in found.candidates[layer] for layer, core in found.cores.items())


def test_there_are_cases() -> None:
    assert len(CASES) >= 7
