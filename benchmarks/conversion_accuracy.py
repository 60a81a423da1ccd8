"""Accuracy against T of a trained CIFAR-10 ResNet-20, converted by our recipes and SpikingJelly's.

``python -m benchmarks.conversion_accuracy --weights FILE`` gives every recipe the same calibration
images and tests all on the same images in the same run. After each it writes ``curves.json``, from
which a run that was stopped goes on; at the end it prints the table of ``docs/conversion.md`` and
draws the plot.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conversion import without_padding
from rheobase.convert import RECIPES, NeuronRule
from rheobase.experiments.conversion_curve import (
    Curve,
    conversion_curves,
    load_curves,
    save_curves,
    table,
)
from rheobase.experiments.convert_command import load_images
from rheobase.models.foreign import load_module

__all__ = ["OURS", "THEIRS", "main", "their_curve"]

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
STEPS = (2, 4, 8, 16, 32, 64)
OURS = (  # every recipe that needs no training, and runs in so few steps
    "burst",
    "few_spikes",
    "ttfs",
    "inference_scale",
    "parameter_calibration",
    "calibration_light",
    "calibration_none",
    "rueckauer",
    "threshold_max",
    "snm",
    "spiking_resnet",
    "spiking_yolo",
    "tandem",
    "rmp",
    "hybrid",
    "spike_norm",
    "diehl_data",
    "diehl_model",
    "calibration_advanced",
)
# What becomes of recipes that reset by subtraction where there are biases when they do not.
VARIANTS = tuple(
    replace(RECIPES[name], name=f"{name}, reset to zero", neuron=NeuronRule(reset="zero"))
    for name in ("diehl_data", "spike_norm")
)


@dataclass(frozen=True)
class Theirs:
    """One of SpikingJelly's recipes.

    Attributes:
        make: from batches of calibration images to the recipe.
        batch_size: of those batches.
        passes: how often it sees them.
    """

    make: Callable[[list[Tensor]], Any]
    batch_size: int = 128
    passes: int = 1


def _rate_coding(**options: Any) -> Callable[[list[Tensor]], Any]:
    def make(batches: list[Tensor]) -> Any:
        from spikingjelly.activation_based.ann2snn import RateCodingRecipe

        return RateCodingRecipe(dataloader=batches, **options)

    return make


def _reset_to_zero(threshold: float) -> nn.Module:
    from spikingjelly.activation_based.neuron import IFNode

    node: nn.Module = IFNode(v_threshold=threshold, v_reset=0.0)
    return node


def _local_balance(batches: list[Tensor]) -> Any:
    from spikingjelly.activation_based.ann2snn import LocalThresholdBalancingRecipe

    return LocalThresholdBalancingRecipe(dataloader=batches)


_BEST = {"channel_wise": True, "half_threshold": True, "pre_spike_maxpool": True}
THEIRS = {
    "SpikingJelly: Max": Theirs(_rate_coding(mode="Max")),
    "SpikingJelly: Max, reset to zero": Theirs(
        _rate_coding(mode="Max", neuron_factory=_reset_to_zero)
    ),
    "SpikingJelly: 99.9 %": Theirs(_rate_coding(mode="99.9%")),
    "SpikingJelly: 99.9 %, channels, half": Theirs(_rate_coding(mode="99.9%", **_BEST)),
    # In the batches that ours takes too, and through the data as often as ours at most.
    "SpikingJelly: local balance": Theirs(_local_balance, batch_size=8, passes=40),
}


@torch.no_grad()
def their_curve(
    name: str,
    ann: nn.Module,
    calibration: Tensor,
    images: Tensor,
    labels: Tensor,
    steps: Sequence[int] = STEPS,
) -> Curve:
    """Convert once, since none of their recipes depends on T, and run for the most steps."""
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter

    how = THEIRS[name]
    start = time.perf_counter()
    batches = list(torch.split(calibration, how.batch_size)) * how.passes
    net = Converter(how.make(batches)).convert(without_padding(ann)).eval()
    converted = time.perf_counter()
    right = dict.fromkeys(steps, 0)
    for x, y in zip(torch.split(images, 125), torch.split(labels, 125), strict=True):
        functional.reset_net(net)
        total = torch.zeros(())
        for step in range(1, max(steps) + 1):
            total = total + net(x)
            if step in right:
                right[step] += int((total.argmax(1) == y).sum())
    accuracy = {step: 100.0 * count / len(images) for step, count in right.items()}
    return Curve(name, accuracy, (converted - start, time.perf_counter() - converted))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion_accuracy",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--weights", required=True, help="resnet20-12fca82f.th")
    parser.add_argument("--test", type=int, default=1000, help="first test images (1000)")
    parser.add_argument("--calibration", type=int, default=1000, help="first training images")
    parser.add_argument("--folder", type=Path, default=Path("runs/conversion_accuracy"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    parser.add_argument("--T", default=",".join(map(str, STEPS)), help="time steps")
    options = parser.parse_args(arguments)
    steps = [int(t) for t in options.T.split(",")]
    options.folder.mkdir(parents=True, exist_ok=True)
    ann = load_module("rheobase.models.ann_resnet:cifar_resnet20", options.weights)
    calibration, _ = load_images("cifar10", True, options.calibration, MEAN, DEVIATION)
    images, labels = load_images("cifar10", False, options.test, MEAN, DEVIATION)
    ann, calibration, images, labels = (
        value.to(options.device) for value in (ann, calibration, images, labels)
    )
    with torch.no_grad():
        right = torch.cat([ann(x).argmax(1) for x in torch.split(images, 250)]) == labels
    accuracy = 100.0 * right.double().mean().item()
    path = options.folder / "curves.json"
    RECIPES.update({one.name: one for one in VARIANTS})
    ours = (*OURS, *(one.name for one in VARIANTS if options.only))
    for name in [n for n in (*THEIRS, *ours) if options.only in n]:
        done = load_curves(path)
        if name not in done:
            if name in THEIRS:
                done[name] = their_curve(name, ann, calibration, images, labels, steps)
                save_curves(path, done)
            else:
                conversion_curves(ann, calibration, images, labels, steps, [name], results=path)
        print(table([load_curves(path)[name]], steps).splitlines()[-1], flush=True)
    known = load_curves(path)
    curves = [known[name] for name in (*ours, *THEIRS) if name in known]
    print(f"\nANN: {accuracy:.2f} % of {len(images)} test images, {len(calibration)} to calibrate")
    print(table(curves, steps))
    _plot(curves, accuracy, options.folder / "conversion_accuracy.svg")
    return 0


def _plot(curves: Sequence[Curve], ann_accuracy: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(ann_accuracy, color="0.5", linewidth=1.0, label="the ANN")
    for curve in curves:
        style = "--" if curve.recipe in THEIRS else "-"
        axes.plot(*zip(*curve.accuracy.items(), strict=True), style, marker=".", label=curve.recipe)
    axes.set_xscale("log", base=2)
    axes.set_xticks(STEPS, [str(t) for t in STEPS])
    axes.set_xlabel("time steps T")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
