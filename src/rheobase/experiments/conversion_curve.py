"""Accuracy of converted networks against time steps, for one recipe or many."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rheobase._paths import write_text
from rheobase.convert import RECIPES, ConvertedNetwork, Recipe, convert

__all__ = [
    "Curve",
    "accuracy_curve",
    "conversion_curves",
    "load_curves",
    "percent",
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
        warned: of dead and saturated layers and the like, at the T converted for last.
    """

    recipe: str
    accuracy: dict[int, float]
    seconds: tuple[float, float] = (0.0, 0.0)
    why_not: str = ""
    warned: tuple[str, ...] = ()


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
            tuple(found.get("warned", ())),
        )
        for name, found in json.loads(path.read_text(encoding="utf-8")).items()
    }


def save_curves(path: Path | None, curves: dict[str, Curve]) -> None:
    """Write them as JSON, whole or not at all."""
    if path is None:
        return
    write_text(path, json.dumps({k: asdict(c) for k, c in curves.items()}, indent=1))


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
    warned: tuple[str, ...] = ()
    groups = [list(steps)] if _alike_for_all_steps(RECIPES.get(name)) else [[t] for t in steps]
    for group in groups:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                net = convert(ann, calibration, recipe=name, T=max(group))
            warned = tuple(str(one.message) for one in caught)
            converted = time.perf_counter()
            curve = accuracy_curve(net, images, labels)
        except ValueError as error:  # of a recipe that does not fit, or too few steps for it
            why_not = str(error)
            continue
        accuracy |= {count: curve[count - 1] for count in group}
        converting += converted - start
        running += time.perf_counter() - converted
    return Curve(name, accuracy, (converting, running), why_not, warned)


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


def percent(curve: Curve, steps: int) -> str:
    """The accuracy at so many steps, or a dash."""
    return f"{curve.accuracy[steps]:.2f}" if steps in curve.accuracy else "–"


def table(curves: Sequence[Curve], steps: Sequence[int]) -> str:
    """A Markdown table: one line a recipe, one column a T."""
    lines = ["| recipe | " + " | ".join(f"T = {t}" for t in steps) + " |"]
    lines.append("|" + "---|" * (len(steps) + 1))
    for curve in curves:
        cells = [percent(curve, t) for t in steps]
        lines.append(f"| {curve.recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
