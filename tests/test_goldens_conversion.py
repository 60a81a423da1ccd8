"""Converted networks held to the released code of their methods: every file of the folder.

A file's kind is the beginning of its name, its cases are its array names. Released code ran in
float32: the mean error of the accumulated output must be below 1e-5 of the mean output. Where a
membrane stands within the last bits of its threshold the order of additions decides whether it
fires, which depends on machine and threads. A sample that differs must therefore be shown to be
such a tie: the official output has to come out when its currents are changed in their last bits.
"""

from __future__ import annotations

import math
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


Run = Callable[[Tensor], Tensor]
LAST_BITS = 8 * torch.finfo(torch.float32).eps  # of a current or membrane: sums round often


def assert_same_output(
    net: ConvertedNetwork,
    run: Run,
    x: Tensor,
    official: Tensor,
    case: str,
    *,
    mine: Tensor | None = None,
) -> None:
    """``run(x)``, which is ``mine`` if that is known, is ``official`` but for samples with ties."""
    mine = run(x) if mine is None else mine
    off = assert_close_means(mine, official, case).nonzero().flatten().tolist()
    wrong = [i for i in off if not is_tie(net, run, x[i : i + 1], official[i : i + 1])]
    assert not wrong, f"{case}: samples {wrong} differ, and by no tie"


def assert_close_means(mine: Tensor, official: Tensor, case: str) -> Tensor:
    """The mean error is small without the samples that are off, which are returned, as a mask."""
    apart = relative_errors(mine, official, official)
    off = apart > 1e-4
    assert apart[~off].mean() <= 1e-5, f"{case}: {apart.mean():.1e}"
    return off


def relative_errors(mine: Tensor, official: Tensor, scale: Tensor) -> Tensor:
    """``[N]``."""
    size = scale.detach().double().abs().mean().clamp(min=1e-9)
    return (mine.detach().double() - official.detach().double()).abs().mean(1) / size


def is_tie(net: ConvertedNetwork, run: Run, sample: Tensor, official: Tensor) -> bool:
    """Whether the official output comes out of currents that differ in their last bits only."""
    draw, copies = torch.Generator().manual_seed(0), 256
    noise: dict[nn.Module, Tensor] = {}

    def shake(module: Spiking, args: tuple[Tensor]) -> tuple[Tensor]:
        current = args[0]
        if module not in noise:  # the same at every step, as what rounded weights do
            shape = copies, *current.shape[1:]
            noise[module] = (torch.rand(shape, generator=draw) * 2.0 - 1.0) * amplitude(len(shape))
        steps = len(current) // copies
        size = current.abs().maximum(module.size.detach())
        return (current + size * noise[module].repeat(steps, *[1] * (current.dim() - 1)),)

    def amplitude(axes: int) -> Tensor:
        """From a thirtieth of the last bits to all of them: where there are many near ties."""
        return LAST_BITS * torch.logspace(-1.5, 0.0, copies).view(-1, *[1] * (axes - 1))

    handles = [module.register_forward_pre_hook(shake) for module in neurons(net)]
    try:
        found = run(sample.expand(copies, *sample.shape[1:]))
    finally:
        for handle in handles:
            handle.remove()
    return bool((relative_errors(found, official, official) <= 1e-4).any())


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
        official = arrays[f"{case}acc_out"][number]
        run = total(net, t, net.recipe.readout.delay)
        assert_same_output(net, run, x, official, f"{case} T={t}", mine=sums[t - 1])


def total(net: ConvertedNetwork, steps: int, delay: int = 0) -> Run:
    """The sum of the outputs of ``steps`` steps, behind the readout's delay."""

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x, steps + delay)[delay:].sum(0)

    return run


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
        assert_same_output(snn, step(snn, t), x, official, f"step {t}", mine=steps[t])


def step(net: ConvertedNetwork, number: int) -> Run:
    """The output of one step."""

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x, number + 1)[number]

    return run


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
            official = goldens[f"{case}.acc_out"][number]
            assert_same_output(snn, total(snn, t), x, official, f"{case} T={t}")


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
    choices: dict[str, Any] = {
        "recipe": "calibration_none", "statistic": statistic,
        "granularity": "channel" if "cw" in words else "layer",
        "neuron": NeuronRule(shift="noshift" not in words),
    }  # fmt: skip
    for number, t in enumerate(goldens["T"].tolist()):
        case, official = f"{name} T={t}", goldens["acc_out"][number]
        # The weights of the released run hang on its random numbers: thresholds only, then.
        choices |= {"T": t, "post": () if "weights" in words else tuple(post)}
        snn = convert(net, arrays["x_calib"], **choices)
        assert_same_thresholds(snn, list(part(goldens, f"T{t}.thr").values()), case)
        if "weights" in words:
            continue
        take_calibrated(snn, goldens, t, case)
        if "mempot" in words and f"T{t}.mempot0" not in goldens:
            assert_some_calibration_gives(official, net, arrays["x_calib"], choices, x, case)
        else:
            assert_same_output(snn, total(snn, t), x, official, case)


def assert_some_calibration_gives(
    official: Tensor, net: nn.Module, data: Tensor, choices: dict[str, Any], x: Tensor, case: str
) -> None:
    """The official output comes out of calibration inputs that differ in their last bits only.

    Where a file has no first membranes, what a tie in calibration did to them can't be put right: a
    neuron that starts a 128th of its threshold off changes a spike in up to half the samples.
    """
    draw, off = torch.Generator().manual_seed(0), []
    while not off or (min(off) > len(x) // 50 and len(off) < 24):
        bits = LAST_BITS / 4 * (2.0 * torch.rand(data.shape, generator=draw) - 1.0)
        snn = convert(net, data * (1.0 + bits) if off else data, **choices)
        apart = relative_errors(total(snn, choices["T"])(x), official, official)
        off.append(int((apart > 1e-4).sum()))
    assert min(off) <= len(x) // 50, f"{case}: {off} samples differ"


def take_calibrated(net: ConvertedNetwork, goldens: Arrays, t: int, case: str) -> None:
    """Biases and first membranes are official up to whole spikes; then put the official ones.

    Calibration counts spikes of a run over 128 samples: a tie in it moves a mean by a whole number
    of spikes, and with it every sample that comes after.
    """
    modules = neurons(net)
    layers = [m for part in (net.stem, net.body) for m in part.modules()]
    layers = [m for m in layers if isinstance(m, nn.Conv2d)]
    for number, (module, layer) in enumerate(zip(modules, layers, strict=True)):
        positions = 128 * math.prod(module.site.shape[1:])
        official = goldens.get(f"T{t}.bias{number}")
        if official is not None:
            one = module.size.detach().flatten() / (t * positions)
            assert_whole_spikes((layer.bias.detach() - official) / one, t * positions, case)
            layer.bias.data = official
        official = goldens.get(f"T{t}.mempot{number}")
        if official is not None:
            one = module.size.detach() / 128
            assert_whole_spikes((module.neuron.start - official[0]) / one, t * 128, case)
            module.neuron.set_start(official[0])


def assert_whole_spikes(apart: Tensor, chances: int, case: str) -> None:
    """Whole numbers of spikes to rounding, and few of all the chances to fire."""
    whole = apart.round()
    assert (apart - whole).abs().max() <= 0.1, f"{case}: {apart.abs().max():.2f} spikes"
    assert whole.abs().sum() <= 1e-4 * chances * len(apart), f"{case}: {whole.abs().sum()} spikes"


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
