"""Thresholds balanced on data: SpikingJelly, inference scale, sinabs, SNM, SNN toolbox."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from conversion_files import cases_of, check, cnn, files, load, neurons, part, trained
from conversion_ties import assert_same_curve, assert_same_thresholds
from rheobase.convert import NeuronRule, Preparation, Readout, Statistic, convert

pytestmark = pytest.mark.golden


def check_ann(name: str) -> None:
    net, arrays = trained(name)
    official = arrays["ann_logits"].double()
    torch.testing.assert_close(net(arrays["x_test"]).double(), official, rtol=1e-5, atol=1e-4)
    # The prepared network (folded, pooled before activations) is the same: what is left with one
    # spike of unlimited size a step is the network itself, up to the rounding to a tiny threshold.
    snn = convert(
        net, arrays["x_calib"][:2], recipe="threshold_max", T=1,
        statistic=Statistic("constant", scale=1e-4), neuron=NeuronRule(levels=1e9),
    )  # fmt: skip
    with torch.no_grad():
        out = snn(arrays["x_test"])[0].double()
    assert (out - official).abs().max() < 2e-2


def check_sj(name: str) -> None:
    net, arrays = trained(name.removeprefix("sj_"))
    goldens = load(name)
    for case in cases_of(goldens):
        if case == "ltb":
            statistic, recipe = Statistic("local_balance", iterations=4), "inference_scale"
            rule = NeuronRule(start=0.5, scaled="multiplied")
        else:
            recipe, rule = "threshold_max", NeuronRule(scaled="multiplied")
            percent = re.fullmatch(r"p([\d.]+)", case)
            statistic = (
                Statistic("percentile", percentile=float(percent[1]), batches="average")
                if percent
                else Statistic("max", batches="average", scale=0.5 if case == "half" else 1.0)
            )
        snn = convert(
            net, arrays["x_calib"], recipe=recipe, T=64, batch_size=64, statistic=statistic,
            neuron=rule,
        )  # fmt: skip
        sizes = [v for k, v in goldens.items() if re.fullmatch(rf"{case}\.scale\..*scaler1\..*", k)]
        assert_same_thresholds(snn, sizes, f"{name} {case}")
        assert_same_curve(snn, goldens, arrays["x_test"], f"{case}.")


def check_inference_scale(name: str) -> None:
    net, arrays = trained("ann_relu_avg")
    goldens = load(name)
    for case in cases_of(goldens):
        choices: dict[str, Any] = {"statistic": Statistic("local_balance", iterations=4)}
        if case == "robust_norm":
            statistic = Statistic("percentile", percentile=99.0, nearest=True, batches="largest")
            choices = {"statistic": statistic, "granularity": "layer"}
        snn = convert(
            net, arrays["x_calib"], recipe="inference_scale", T=64, batch_size=64, **choices
        )
        assert_same_thresholds(snn, list(part(goldens, f"{case}.thre").values()), case)
        assert_same_curve(snn, goldens, arrays["x_test"], f"{case}.")


def check_reference_matrix(name: str) -> None:
    goldens = load(name)
    net = cnn(norm=False)
    layers = [m for m in net if isinstance(m, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(layers):
        layer.weight.data, layer.bias.data = goldens[f"W{number}"], goldens[f"b{number}"]
    net = net.double().eval()
    calibration = load("ann_relu_avg")["x_calib"].double()
    for case in cases_of(goldens):
        match = re.fullmatch(r"(.+)\.(sub|zero)\.v([\d.]+)", case)
        assert match, case
        kind, reset, start = match.groups()
        percent = re.fullmatch(r"p([\d.]+)(nz)?", kind)
        statistic = Statistic({"model": "model_bound"}.get(kind, "max"))
        if percent:
            share, nonzero = float(percent[1]), percent[2] is not None
            statistic = Statistic("percentile", percentile=share, nonzero=nonzero)
        snn = convert(
            net, calibration, recipe="threshold_max", T=64, statistic=statistic,
            granularity="channel" if kind == "cw" else "layer",
            neuron=NeuronRule(reset="zero" if reset == "zero" else "subtract", start=float(start)),
        )  # fmt: skip
        sizes = [goldens[f"{kind}.lam{number}"] for number in range(4)]
        assert_same_thresholds(snn, sizes, case)
        assert_same_curve(snn, goldens, goldens["x_test"].double(), f"{case}.")


def check_sinabs(name: str) -> None:
    net, arrays = trained("ann_relu_nobn_avg")
    goldens = load(name)
    for case in cases_of(goldens):
        mode, norm = case.split(".norm")
        rule = NeuronRule(levels=float("inf") if mode == "multi" else 1, lowest=-1.0)
        statistic = Statistic("max" if norm == "1" else "constant")
        snn = convert(
            net, arrays["x_calib"], recipe="threshold_max", T=64, neuron=rule, statistic=statistic
        )
        assert_same_curve(snn, goldens, arrays["x_test"], f"{case}.")


def check_snm(name: str) -> None:
    net, arrays = trained("ann_relu_nobn_avg")
    goldens = load(name)
    places = [str(i) for i, module in enumerate(net) if isinstance(module, nn.ReLU)]
    given = dict(zip(places, goldens["snm.thresh"], strict=True))
    snn = convert(net, arrays["x_calib"], recipe="snm", T=64, thresholds=given)
    assert_same_curve(snn, goldens, arrays["x_test"], "snm.")


def check_toolbox(name: str) -> None:
    """SNN toolbox, INI simulator: pools are neurons at the threshold before, the output spikes.

    It took 480 of the calibration images (whole batches); a file has accuracies only, in which a
    sample without any output spike counts as wrong. It normalises weights, so that all thresholds
    are 1, and so does this: means of four such spikes are exact, and often are at the threshold.
    """
    arrays = load("ann_relu_nobn_avg")
    x, labels = arrays["x_test"], arrays["y_test"]
    goldens = load(name)
    for case in cases_of(goldens, ".acc_all_T"):
        percent = re.fullmatch(r"p([\d.]+)(nz)?", case)
        assert percent, case
        statistic = Statistic("percentile", percentile=float(percent[1]), nonzero=True)
        choices: dict[str, Any] = {
            "recipe": "rueckauer", "T": 64, "readout": Readout("spikes"),
            "prepare": Preparation(passes=("spiking_averages",)),
        }  # fmt: skip
        calibration = arrays["x_calib"][:480]
        net, _ = trained("ann_relu_nobn_avg")
        found = neurons(convert(net, calibration, statistic=statistic, **choices))
        scales = [m.size.item() for m in found if not re.fullmatch(r"\d+_neurons", m.site.name)]
        for scale, official in zip(scales, goldens[f"{case}.scale"], strict=False):
            assert abs(scale - float(official)) <= 0.006, "printed to two decimals"
        layers = [m for m in net if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer, before, scale in zip(layers, [1.0, *scales], scales, strict=False):
            layer.weight.data *= before / scale
            layer.bias.data /= scale
        snn = convert(net, calibration, statistic=Statistic("constant"), **choices)
        with torch.no_grad():
            counts = snn(x).cumsum(0)
        right = (counts.argmax(2) == labels) & (counts.sum(2) > 0)
        accuracy = 100.0 * right.double().mean(1)
        official = goldens[f"{case}.acc_all_T"].double()
        apart = (accuracy - official[: len(accuracy)]).abs()
        assert apart.max() <= 100.0 * 2 / len(x), f"{case}: {apart.max():.2f} %"


CHECKS: dict[str, Callable[[str], None]] = {
    "ann_relu": check_ann,
    "sj_": check_sj,
    "inference_scale": check_inference_scale,
    "reference_matrix": check_reference_matrix,
    "sinabs": check_sinabs,
    "snm": check_snm,
    "snn_toolbox": check_toolbox,
}


@pytest.mark.parametrize("name", files(*CHECKS))
@pytest.mark.filterwarnings("ignore:.*never active:UserWarning")
def test_conversion(name: str) -> None:
    check(name, CHECKS)
