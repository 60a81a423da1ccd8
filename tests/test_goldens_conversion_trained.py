"""Networks trained to be converted: QCFS (SRP, COS, group neurons), threshold ReLU, Fast-SNN."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from conversion_files import UNFOLDED, Arrays, cases_of, check, cnn, files, load, part, qcfs
from conversion_ties import (
    assert_close_means,
    assert_same_curve,
    assert_same_output,
    assert_same_thresholds,
    step,
    total,
)
from rheobase.convert import NeuronRule, convert
from rheobase.layers import QuantReLU, ThresholdReLU

pytestmark = pytest.mark.golden


def check_qcfs(name: str) -> None:
    net, arrays = qcfs(int(name.removeprefix("qcfs_L")))
    x = arrays["x_test"]
    torch.testing.assert_close(net(x), arrays["ann_logits"], rtol=1e-5, atol=1e-4)
    snn = convert(net, x[:1], recipe="qcfs", T=64, prepare=UNFOLDED)
    assert_same_thresholds(snn, list(arrays["thresh"]), name)
    assert_same_curve(snn, arrays, x, "")
    with torch.no_grad():
        steps = snn(x, len(arrays["out_per_step_T16"]))
    for t, official in enumerate(arrays["out_per_step_T16"]):
        assert_same_output(snn, step(snn, t), x, official, f"step {t}", mine=steps[t])


def check_of_qcfs(name: str) -> None:
    """Methods that run a QCFS network with another neuron."""
    goldens = load(name)
    recipe = {"srp": "srp", "cos": "cos", "gn": "group_neuron"}[name.split("_")[0]]
    networks = files("qcfs_L")
    if not networks:
        pytest.skip("the networks that this file refers to are not in the folder")
    for case in cases_of(goldens):
        match = re.fullmatch(r"L(\d+)\.(?:tau|m|rho)(\d+)", case)
        assert match, case
        levels, number = int(match[1]), int(match[2])
        if f"qcfs_L{levels}" not in networks:
            continue
        net, arrays = qcfs(levels)
        x = arrays["x_test"]
        rules = {
            "srp": NeuronRule("masked", start=0.5, probe=number, scaled="divided"),
            "cos": NeuronRule("offset", start=0.5, probe=number),
            "group_neuron": NeuronRule(start=0.5, members=number),
        }
        snn = convert(net, x[:1], recipe=recipe, T=64, neuron=rules[recipe], prepare=UNFOLDED)
        if recipe == "srp":
            snn.recipe = replace(snn.recipe, readout=replace(snn.recipe.readout, delay=number))
        assert_same_curve(snn, goldens, x, f"{case}.")


def check_threshold_relu(name: str) -> None:
    goldens = load(name)
    calibration = goldens["x_test"][:8]
    for case in cases_of(goldens):
        kind, shift = case.split(".shift")
        net = cnn(lambda kind=kind: ThresholdReLU(float(kind[2:])), norm=False)
        net.load_state_dict(part(goldens, f"{kind}.w."), strict=False)
        net.eval()
        x = goldens["x_test"]
        torch.testing.assert_close(net(x), goldens[f"{kind}.ann_logits"], rtol=1e-5, atol=1e-4)
        places = [str(i) for i, m in enumerate(net) if isinstance(m, ThresholdReLU)]
        given = dict(zip([*places, "output_neurons"], goldens[f"{kind}.thresh"], strict=True))
        for number, t in enumerate(goldens["T"].tolist()):
            snn = convert(
                net, calibration, recipe="threshold_relu", T=t, thresholds=given,
                neuron=NeuronRule(shift=shift == "1"),
            )  # fmt: skip
            official = goldens[f"{case}.acc_out"][number]
            assert_same_output(snn, total(snn, t), x, official, f"{case} T={t}")


def fast_snn(arrays: Arrays) -> nn.Module:
    """Fast-SNN's network with its weights quantised: by the file, first and last to 8 bits."""
    bits = int(arrays["bit"])
    weights = part(arrays, "w.")

    def layer(number: int, made: nn.Module, norm: nn.Module | None) -> list[nn.Module]:
        prefix = f"layer{number}.block."
        key = f"{prefix}0.weight" if norm is not None else f"{prefix}weight"
        weight = weights[key]
        largest = weight.max()
        eight = weight.div(largest).mul(127).round().div(127).mul(largest)
        made.weight.data = arrays.get(f"wq.layer{number}", eight)
        bias = weights.get(key.replace("weight", "bias"))
        made.bias = None if bias is None else nn.Parameter(bias)
        if norm is None:
            return [made]
        norm.load_state_dict(part(weights, f"{prefix}1."))
        return [made, norm, QuantReLU(bits, float(arrays["act_alpha"][number - 1]))]

    return nn.Sequential(
        *layer(1, nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)),
        *layer(2, nn.Conv2d(16, 32, 3, 2, padding=1), nn.BatchNorm2d(32)),
        *layer(3, nn.Conv2d(32, 32, 3, 2, padding=1), nn.BatchNorm2d(32)),
        nn.Flatten(),
        *layer(4, nn.Linear(128, 64), nn.BatchNorm1d(64)),
        *layer(5, nn.Linear(64, 10), None),
    ).eval()  # fmt: skip


def check_fast_snn(name: str) -> None:
    arrays = load(name)
    net, x, steps = fast_snn(arrays), arrays["x_test"], int(arrays["T"])
    assert not assert_close_means(net(x), arrays["ann_logits"], f"{name} ANN").any()
    for case, rule in (
        ("signed", NeuronRule("signed", start=0.5, tolerance=1e-3)),
        ("unsigned", NeuronRule(start=0.5)),
    ):
        snn = convert(net, x[:1], recipe="fast_snn", T=steps, neuron=rule, prepare=UNFOLDED)
        assert_same_thresholds(snn, list(arrays["act_alpha"]), case)
        official = arrays[f"snn_{case}_sum"]
        assert_same_output(snn, total(snn, steps), x, official, f"{name} {case}")


CHECKS: dict[str, Callable[[str], None]] = {
    "qcfs": check_qcfs,
    "srp": check_of_qcfs,
    "cos": check_of_qcfs,
    "gn": check_of_qcfs,
    "threshold_relu": check_threshold_relu,
    "fastsnn": check_fast_snn,
}


@pytest.mark.parametrize("name", files(*CHECKS))
@pytest.mark.filterwarnings("ignore:.*never active:UserWarning")
def test_conversion(name: str) -> None:
    check(name, CHECKS)
