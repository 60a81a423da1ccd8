"""Accuracy of converted networks against time steps, for one recipe or many."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from rheobase.convert import RECIPES, ConvertedNetwork, Recipe, convert

__all__ = [
    "Curve",
    "accuracy_curve",
    "conversion_curves",
    "curve_page",
    "load_curves",
    "save_curves",
    "table",
]


@dataclass(frozen=True)
class Curve:
    """One recipe's accuracies.

    Attributes:
        recipe: its name.
        accuracy: T -> percent, converted anew for every T where the recipe depends on it.
        seconds: of all conversions, and of all inference.
        why_not: why there are none, or none for some T.
    """

    recipe: str
    accuracy: dict[int, float]
    seconds: tuple[float, float] = (0.0, 0.0)
    why_not: str = ""


@torch.no_grad()
def accuracy_curve(net: ConvertedNetwork, images: Tensor, labels: Tensor) -> list[float]:
    """Accuracy in percent of the mean output after 1, 2, ..., T steps (after the delay)."""
    batch_size = 50 if images.is_cpu else 100
    right = torch.zeros(net.T, device=images.device)
    delay = net.recipe.readout.delay
    for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        sums = net(x)[delay:].cumsum(0)
        right += (sums.argmax(2) == y).sum(1)
    return (100.0 * right / len(images)).tolist()


def conversion_curves(
    ann: nn.Module,
    calibration: Tensor,
    images: Tensor,
    labels: Tensor,
    steps: Sequence[int],
    recipes: Iterable[str] | None = None,
    *,
    results: str | os.PathLike[str] | None = None,
) -> list[Curve]:
    """Convert for every recipe and every T, and measure.

    Args:
        ann: the trained network, on the device of the images.
        calibration: inputs ``[N, ...]``.
        images: test inputs.
        labels: their classes.
        steps: the T to convert for and to measure at.
        recipes: names; default those that need no training.
        results: a JSON file that is written after every recipe, and from which a run that was
            stopped goes on.
    """
    names = list(recipes or [r.name for r in RECIPES.values() if "training" not in r.needs])
    path = None if results is None else Path(results)
    done = load_curves(path)
    for name in names:
        if name not in done:
            done[name] = _measured(ann, calibration, images, labels, steps, name)
            save_curves(path, done)
    return [done[name] for name in names]


def load_curves(path: Path | None) -> dict[str, Curve]:
    """What `save_curves` wrote, by recipe; nothing if there is no such file."""
    if path is None or not path.exists():
        return {}
    return {
        name: Curve(
            name,
            {int(count): value for count, value in found["accuracy"].items()},
            tuple(found["seconds"]),
            found["why_not"],
        )
        for name, found in json.loads(path.read_text(encoding="utf-8")).items()
    }


def save_curves(path: Path | None, curves: dict[str, Curve]) -> None:
    """Write them as JSON, whole or not at all."""
    if path is None:
        return
    part = path.with_suffix(".part")
    part.write_text(json.dumps({k: asdict(c) for k, c in curves.items()}, indent=1), "utf-8")
    part.replace(path)


def _measured(
    ann: nn.Module,
    calibration: Tensor,
    images: Tensor,
    labels: Tensor,
    steps: Sequence[int],
    name: str,
) -> Curve:
    accuracy: dict[int, float] = {}
    converting, running, why_not = 0.0, 0.0, ""
    groups = [list(steps)] if _alike_for_all_steps(RECIPES.get(name)) else [[t] for t in steps]
    for group in groups:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                net = convert(ann, calibration, recipe=name, T=max(group))
            converted = time.perf_counter()
            curve = accuracy_curve(net, images, labels)
        except ValueError as error:  # of a recipe that does not fit, or too few steps for it
            why_not = str(error)
            continue
        accuracy |= {count: curve[count - 1] for count in group}
        converting += converted - start
        running += time.perf_counter() - converted
    return Curve(name, accuracy, (converting, running), why_not)


def _alike_for_all_steps(recipe: Recipe | None) -> bool:
    """Whether a network converted for T steps is, after t of them, the one converted for t."""
    if recipe is None:
        return False
    return (
        recipe.statistic.kind in ("max", "percentile", "local_balance", "learned", "model_bound")
        and recipe.neuron.kind in ("integrate", "signed", "imbalanced")
        and not recipe.neuron.shift
        and not recipe.post
        and recipe.encoding.kind == "current"
    )


def _percent(curve: Curve, steps: int) -> str:
    return f"{curve.accuracy[steps]:.2f}" if steps in curve.accuracy else "–"


def table(curves: Sequence[Curve], steps: Sequence[int]) -> str:
    """A Markdown table: one line a recipe, one column a T."""
    lines = ["| recipe | " + " | ".join(f"T = {t}" for t in steps) + " |"]
    lines.append("|" + "---|" * (len(steps) + 1))
    for curve in curves:
        cells = [_percent(curve, t) for t in steps]
        lines.append(f"| {curve.recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve_page(title: str, ann_accuracy: float, curves: Sequence[Curve], net: ConvertedNetwork,
               steps: Sequence[int]) -> str:  # fmt: skip
    """One HTML page without outside resources: the curve, and every layer of one network."""
    from rheobase.experiments.figures import conversion_curves as drawn  # matplotlib, when asked

    measured = {curve.recipe: curve.accuracy for curve in curves if curve.accuracy}
    css = files("rheobase.experiments").joinpath("report.css").read_text(encoding="utf-8")
    report = net.report()
    head = "".join(f"<th>T = {t}</th>" for t in steps)
    rows = "".join(
        f"<tr><td>{escape(c.recipe)}</td>"
        + "".join(
            f"<td>{c.accuracy[t]:.2f}</td>" if t in c.accuracy else "<td>–</td>" for t in steps
        )
        + "</tr>"
        for c in curves
    )
    columns = ("layer", "line", "became", "spikes", "threshold", "rate", "saturated", "dead",
               "clip", "rounding", "timing", "error")  # fmt: skip
    layers = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (
            one.name, one.line.rsplit("/", 1)[-1], one.became, one.spikes,
            f"{one.threshold[1]:.4g}", f"{one.rate:.4f}", f"{one.saturated:.4f}",
            f"{one.dead:.3f}", f"{one.clip_error:.4f}", f"{one.rounding_error:.4f}",
            f"{one.timing_error:.4f}", f"{one.error:.4f}",
        )) + "</tr>"
        for one in report.layers
    )  # fmt: skip
    kinds = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(what)}</td></tr>"
        for name, what in report.spikeness.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n<p>The ANN: {ann_accuracy:.2f} %. Accuracy of the mean output, "
        f"in percent:</p>\n<table><tr><th>recipe</th>{head}</tr>{rows}</table>\n"
        f'<div style="max-width: 32rem">{drawn(measured, ann_accuracy)}</div>\n'
        f"<h2>Every layer at T = {report.T}</h2>\n<p>Errors are relative to the layer's mean "
        f"activation, over {report.samples} calibration inputs.</p>\n<table><tr>"
        + "".join(f"<th>{name}</th>" for name in columns)
        + f"</tr>{layers}</table>\n<h2>What the layers with weights are given</h2>\n"
        f"<table><tr><th>layer</th><th>input</th></tr>{kinds}</table>\n</main>\n</body>\n</html>\n"
    )
