"""Converted networks held to the released code of their methods: every file of the folder.

A file's kind is the beginning of its name, its cases are its array names. Released code ran in
float32: the mean error of the accumulated output must be below 1e-5 of the mean output, over all
samples but those (at most one in fifty) in which a spike stood within the last bits of its
threshold and fell on the other side.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.convert import (
    ConvertedNetwork,
    FewSpikeNeuron,
    NeuronRule,
    PostCalibration,
    Preparation,
    Readout,
    Spiking,
    Statistic,
    convert,
)
from rheobase.convert.statistics import best_threshold
from rheobase.layers import QCFS, QuantReLU, ThresholdReLU

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "conversion"
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
UNFOLDED = Preparation(fold_batch_norm=False)
Arrays = dict[str, Tensor]


def load(name: str) -> Arrays:
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz, which this file refers to, is not in the folder")
    with np.load(path) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def part(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def cnn(
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    norm: bool = True,
    pool: type[nn.Module] = nn.AvgPool2d,
) -> nn.Sequential:
    """The network of most files."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *norms, activation()]

    return nn.Sequential(
        *block(1, 16), *block(16, 32), pool(2), *block(32, 32), pool(2), nn.Flatten(),
        nn.Linear(128, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(name: str) -> tuple[nn.Module, Arrays]:
    """The plain network of a file ``ann_relu_*``."""
    arrays = load(name)
    net = cnn(norm="nobn" not in name, pool=nn.MaxPool2d if "max" in name else nn.AvgPool2d)
    net.load_state_dict(part(arrays, "w."))
    return net.eval(), arrays


def qcfs(levels: int) -> tuple[nn.Module, Arrays]:
    arrays = load(f"qcfs_L{levels}")
    net = cnn(lambda: QCFS(levels))
    weights = part(arrays, "w.")
    net.load_state_dict(
        {k.replace("thresh", "threshold"): v.reshape(()) if "thresh" in k else v
         for k, v in weights.items()}
    )  # fmt: skip
    return net.eval(), arrays


def neurons(net: ConvertedNetwork) -> list[Spiking]:
    """In order of execution."""
    calls = [n.target for n in net.body.graph.nodes if n.op == "call_module"]
    modules = [net.body.get_submodule(str(name)) for name in calls]
    return [module for module in modules if isinstance(module, Spiking)]


def assert_same_output(mine: Tensor, official: Tensor, case: str, tolerance: float = 1e-5) -> None:
    mine, official = mine.detach().double(), official.double()
    apart = (mine - official).abs().mean(1) / official.abs().mean().clamp(min=1e-9)
    off = int((apart > 10 * tolerance).sum())
    assert off <= max(1, len(apart) // 50), f"{case}: {off} samples differ, {apart.max():.1e}"
    assert apart[apart <= 10 * tolerance].mean() <= tolerance, f"{case}: {apart.mean():.1e}"


def assert_same_thresholds(net: ConvertedNetwork, official: list[Tensor], case: str) -> None:
    mine = [module.size.detach().flatten() for module in neurons(net)]
    assert len(mine) == len(official)
    for found, expected in zip(mine, official, strict=True):
        expected = expected.flatten().to(found)
        found, expected = torch.broadcast_tensors(found, expected)
        live = expected > 0.0  # released code gives units that were never active a threshold of 0
        torch.testing.assert_close(found[live], expected[live], rtol=1e-5, atol=1e-6, msg=case)


def assert_same_curve(net: ConvertedNetwork, arrays: Arrays, x: Tensor, case: str) -> None:
    """The accumulated output at every T of the file."""
    steps = [int(t) for t in arrays.get("T", torch.tensor([1, 2, 4, 8, 16, 32, 64]))]
    with torch.no_grad():
        sums = net(x, max(steps) + net.recipe.readout.delay)[net.recipe.readout.delay :].cumsum(0)
    for number, t in enumerate(steps):
        assert_same_output(sums[t - 1], arrays[f"{case}acc_out"][number], f"{case} T={t}")


def cases_of(arrays: Arrays, ending: str = ".acc_out") -> list[str]:
    found = [name.removesuffix(ending) for name in arrays if name.endswith(ending)]
    assert found
    return found


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
        assert_same_output(steps[t], official, f"step {t}")


def check_of_qcfs(name: str) -> None:
    """Methods that run a QCFS network with another neuron."""
    goldens = load(name)
    recipe = {"srp": "srp", "cos": "cos", "gn": "group_neuron"}[name.split("_")[0]]
    for case in cases_of(goldens):
        match = re.fullmatch(r"L(\d+)\.(?:tau|m|rho)(\d+)", case)
        assert match, case
        levels, number = int(match[1]), int(match[2])
        if not (FOLDER / f"qcfs_L{levels}.npz").exists():
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


def check_snm(name: str) -> None:
    net, arrays = trained("ann_relu_nobn_avg")
    goldens = load(name)
    places = [str(i) for i, module in enumerate(net) if isinstance(module, nn.ReLU)]
    given = dict(zip(places, goldens["snm.thresh"], strict=True))
    snn = convert(net, arrays["x_calib"], recipe="snm", T=64, thresholds=given)
    assert_same_curve(snn, goldens, arrays["x_test"], "snm.")


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
            with torch.no_grad():
                out = snn(x).sum(0)
            assert_same_output(out, goldens[f"{case}.acc_out"][number], f"{case} T={t}")


class CalibrationNet(nn.Module):
    """The network of the files ``calib_*``."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.f(x).flatten(1))


def check_calibration(name: str) -> None:
    arrays = load("calib_ann")
    net = CalibrationNet().eval()
    net.load_state_dict(part(arrays, "w."))
    x = arrays["x_test"]
    torch.testing.assert_close(net(x), arrays["ann_logits"], rtol=1e-5, atol=1e-4)
    if name == "calib_ann":
        return
    goldens = load(name)
    words = name.split("_")[1:]
    percent = re.fullmatch(r"p(?:ct)?([\d.]+)", words[0])
    statistic = Statistic({"max": "max"}.get(words[0], "least_squares"), batches="average")
    if percent:
        share = float(percent[1])
        share = share / 10.0 if share > 100.0 else share
        statistic = Statistic("percentile", percentile=share, batches="average")
    post = []
    if "weights" in words:
        post.append(PostCalibration("weights", samples=256, iterations=300, learning_rate=4e-5))
    if "mempot" in words:
        post.append(PostCalibration("potential_mean", samples=128))
    if "light" in words:
        post.append(PostCalibration("bias_mean", samples=128))
    for number, t in enumerate(goldens["T"].tolist()):
        sizes = list(part(goldens, f"T{t}.thr").values())
        # The weights of the released run hang on its random numbers: thresholds only, then.
        steps = [] if "weights" in words else post
        snn = convert(
            net, arrays["x_calib"], recipe="calibration_none", T=t, statistic=statistic,
            granularity="channel" if "cw" in words else "layer",
            neuron=NeuronRule(shift="noshift" not in words), post=tuple(steps),
        )  # fmt: skip
        assert_same_thresholds(snn, sizes, f"{name} T={t}")
        if "weights" in words:
            continue
        with torch.no_grad():
            out = snn(x).sum(0)
        assert_same_output(out, goldens["acc_out"][number], f"{name} T={t}")


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
    assert_same_output(net(x), arrays["ann_logits"], f"{name} ANN")
    for case, rule in (
        ("signed", NeuronRule("signed", start=0.5, tolerance=1e-3)),
        ("unsigned", NeuronRule(start=0.5)),
    ):
        snn = convert(net, x[:1], recipe="fast_snn", T=steps, neuron=rule, prepare=UNFOLDED)
        assert_same_thresholds(snn, list(arrays["act_alpha"]), case)
        with torch.no_grad():
            out = snn(x).sum(0)
        assert_same_output(out, arrays[f"snn_{case}_sum"], f"{name} {case}")


def check_units(name: str) -> None:
    arrays = load(name)
    for case in cases_of(arrays, ".y"):
        if not case.startswith("fs."):
            continue
        code = [arrays[f"{case}.{letter}"] for letter in "Thd"]
        neuron = FewSpikeNeuron(*code)
        current = torch.zeros(len(code[0]), len(arrays["fs.x"]))
        current[0] = arrays["fs.x"]
        with torch.no_grad():
            value = (neuron(current) * neuron.weights.unsqueeze(1)).sum(0)
        torch.testing.assert_close(value, arrays[f"{case}.y"], rtol=1e-5, atol=1e-5)
    activations = arrays["mse.act"]
    for case in cases_of(arrays, ".layer"):
        steps = int(case.removeprefix("mse.T"))
        layer = best_threshold(activations.reshape(1, -1), steps)
        channels = activations.transpose(0, 1).flatten(1)
        torch.testing.assert_close(layer[0], arrays[f"{case}.layer"], rtol=1e-5, atol=0.0)
        channel = best_threshold(channels, steps)
        torch.testing.assert_close(channel, arrays[f"{case}.channel"], rtol=1e-5, atol=0.0)


def check_toolbox(name: str) -> None:
    """SNN toolbox, INI simulator: pools are neurons at the threshold before, the output spikes.

    It took 480 of the calibration images (whole batches); a file has accuracies only, in which a
    sample without any output spike counts as wrong.
    """
    net, arrays = trained("ann_relu_nobn_avg")
    x, labels = arrays["x_test"], arrays["y_test"]
    goldens = load(name)
    for case in cases_of(goldens, ".acc_all_T"):
        percent = re.fullmatch(r"p([\d.]+)(nz)?", case)
        assert percent, case
        statistic = Statistic("percentile", percentile=float(percent[1]), nonzero=True)
        choices: dict[str, Any] = {
            "recipe": "rueckauer", "T": 64, "statistic": statistic,
            "readout": Readout("spikes"),
            "prepare": Preparation(passes=("spiking_averages",)),
        }  # fmt: skip
        calibration = arrays["x_calib"][:480]
        first = {
            m.site.name: m.size.detach() for m in neurons(convert(net, calibration, **choices))
        }
        places = list(first)
        given = {
            n: first[places[i - 1]] for i, n in enumerate(places) if re.fullmatch(r"\d+_neurons", n)
        }  # fmt: skip
        snn = convert(net, calibration, thresholds=given, **choices)
        scales = [m.size.item() for m in neurons(snn) if m.site.name not in given]
        for found, official in zip(scales, goldens[f"{case}.scale"], strict=False):
            assert abs(found - float(official)) <= 0.006, "printed to two decimals"
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
    "qcfs": check_qcfs,
    "srp": check_of_qcfs,
    "cos": check_of_qcfs,
    "gn": check_of_qcfs,
    "snm": check_snm,
    "threshold_relu": check_threshold_relu,
    "calib_": check_calibration,
    "fastsnn": check_fast_snn,
    "unit_neurons": check_units,
    "snn_toolbox": check_toolbox,
}


def check_of(name: str) -> Callable[[str], None] | None:
    return next((check for start, check in CHECKS.items() if name.startswith(start)), None)


@pytest.mark.parametrize("name", [name for name in FILES if check_of(name)])
@pytest.mark.filterwarnings("ignore:.*never active:UserWarning")
def test_conversion(name: str) -> None:
    check = check_of(name)
    assert check is not None
    check(name)
