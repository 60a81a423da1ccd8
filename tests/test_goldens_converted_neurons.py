"""Neurons, codes and operators of converted transformers held to official code, step by step."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rheobase.layers import Accumulated
from rheobase.neurons import STBIF, BinaryCode, BurstIF, IntegerCode, MultiThreshold

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens"))
TRACES = FOLDER / "language" / "ecmt_neuron_traces.npz"
CODES = FOLDER / "language" / "conversion_neurons.npz"
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


COMPENSATED = {
    "gelu": F.gelu,
    "softmax": lambda x: x.softmax(-1),
    "layernorm": F.layer_norm,
}
# Official results are those of float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("name", COMPENSATED)
def test_expectation_compensation(name: str) -> None:
    traces, units = _load(TRACES), _load(UNITS)
    for x, expected, eps in [
        (traces[f"ec_{name}/x"], traces[f"ec_{name}/y"], 1e-6),
        (units["x"].unsqueeze(1), units[f"ecmt.ec_{name}.out"].unsqueeze(1), 1e-5),
    ]:
        function = COMPENSATED[name]
        if name == "layernorm":
            function = partial(F.layer_norm, normalized_shape=x.shape[-1:], eps=eps)
        y = Accumulated(function, "mean")(x.double())
        torch.testing.assert_close(y, expected.double(), **CLOSE)


def test_expectation_compensated_product() -> None:
    traces, units = _load(TRACES), _load(UNITS)
    for a, b, expected in [
        (traces["ec_matmul/a"], traces["ec_matmul/b"], traces["ec_matmul/y"]),
        tuple(units[f"ecmt.at_{name}"].unsqueeze(1) for name in ("a", "b", "out")),
    ]:
        y = Accumulated(torch.matmul, "mean")(a.double(), b.double())
        torch.testing.assert_close(y, expected.double(), **CLOSE)


def test_burst_of_sta() -> None:
    arrays = _load(CODES)
    x, weight, bias = (arrays[f"sta/{name}"].double() for name in ("x", "weight", "bias"))
    cases = [n.split("/")[1] for n in arrays if n.startswith("sta/") and n.endswith("/out")]
    assert cases
    for case in cases:
        expected = arrays[f"sta/{case}/out"].double()
        plain = arrays["sta/plain/out"].double()
        threshold = plain[plain > 0.0].min()
        burst = int(case.rsplit("burst", 1)[1]) if "burst" in case else 0
        neuron = BurstIF(threshold, burst=burst, signed=case.startswith("bip"))
        spikes, v = neuron(F.linear(x, weight, bias), tap="v")
        torch.testing.assert_close(spikes, expected, **CLOSE)
        torch.testing.assert_close(v[-1], arrays[f"sta/{case}/mem_final"].double(), **CLOSE)


def test_integer_codes_of_spikingbrain() -> None:
    arrays = _load(CODES)
    cases = [name.removesuffix("/s_int") for name in arrays if name.endswith("/s_int")]
    assert cases
    for case in cases:
        k, x = float(case.rsplit("k", 1)[1]), arrays["spikingbrain/x"]
        code = IntegerCode(k)
        assert torch.equal(code.integers(x), arrays[f"{case}/s_int"]), case
        assert torch.equal(code.threshold(x), arrays[f"{case}/vth"]), case
        for form, name in [
            ("ternary", "ternary"),
            ("bits", "bitwise_bidir"),
            ("twos_complement", "bitwise_twos"),
        ]:
            spikes = IntegerCode(k, form).spikes(x)
            assert torch.equal(spikes.to(torch.int8), arrays[f"{case}/{name}"]), (case, form)


def test_binary_code_of_las() -> None:
    arrays = _load(CODES)
    code, x = BinaryCode(), arrays["las/x"]
    assert torch.equal(code.spikes(x), arrays["las/OATN_spikes_16"])
    assert torch.equal(code.spikes(x).sum(0), arrays["las/OATN_sum"])
