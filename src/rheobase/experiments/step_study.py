"""Accuracy against time steps: of networks that were converted, and of such trained directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from torch import nn
from torch.utils.data import TensorDataset

from rheobase.experiments.conversion_curve import conversion_curves, percent
from rheobase.experiments.kept_runs import finished, run_folder
from rheobase.experiments.measured import first_samples
from rheobase.experiments.page import html_page, html_table
from rheobase.models.foreign import load_module
from rheobase.train import TrainConfig, evaluate, load_config

__all__ = ["StepResults", "StepStudy", "run_step_study"]

# Test images that all networks of a study see, and training images that conversions are given.
_TESTED, _CALIBRATION = 500, 128
# So near the ordinary network's accuracy, in points, is near enough to be deployed.
_NEAR = 1.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class StepStudy:
    """Ways to a spiking network, for the same images.

    Attributes:
        asks: what it is to find out, and who asks.
        ann: the recipe that trains the ordinary network, and settings.
        direct: the same of each network that is trained with spikes, by the name of its line.
        module: what makes the ordinary network, as ``rheobase convert`` takes it.
        conversions: recipes that convert it.
        steps: the T to convert for.
    """

    asks: str
    ann: tuple[str, ...]
    direct: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    module: str = ""
    conversions: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class StepResults:
    """What was measured, accuracies in percent.

    Attributes:
        asks: of the study.
        tested: how many test images.
        ann: the ordinary network's accuracy.
        curves: T -> accuracy of the mean of so many steps, by the name of each line.
        why_not: why a conversion has no accuracy, by its name.
    """

    asks: str
    tested: int
    ann: float
    curves: dict[str, dict[int, float]]
    why_not: dict[str, str]

    @property
    def steps(self) -> list[int]:
        """All T at which something was measured."""
        return sorted({t for curve in self.curves.values() for t in curve})

    def near(self, name: str) -> int | None:
        """The least T from which on a line stays within a point of the ordinary network."""
        found = None
        for t, accuracy in sorted(self.curves[name].items(), reverse=True):
            if accuracy < self.ann - _NEAR:
                break
            found = t
        return found

    def table(self) -> str:
        """As a Markdown table."""
        lines = [f"| {' | '.join(self._head())} |", "|---" * (len(self.steps) + 2) + "|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self._rows())]) + "\n"

    def page(self, title: str) -> str:
        """As an HTML page, with a figure."""
        from rheobase.experiments.figures import conversion_curves as drawn  # matplotlib

        missing = [f"<li>{escape(f'{n}: {why}')}</li>" for n, why in self.why_not.items()]
        body = [
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(self.asks)}</p>",
            f"<p>Accuracy of the mean output of the first T steps, in percent of {self.tested} "
            f"test images. The ordinary network: {self.ann:.2f}. The last column says from which T "
            f"on a network stays within {_NEAR:g} point of it.</p>",
            html_table(self._head(), self._rows()),
            *(["<p>Not converted:</p><ul>", *missing, "</ul>"] if missing else []),
            f'<div style="max-width: 32rem">{drawn(self.curves, self.ann)}</div>',
        ]
        return html_page(title, body)

    def _head(self) -> list[str]:
        return ["network", *(f"T = {t}" for t in self.steps), "near the ANN from"]

    def _rows(self) -> list[list[str]]:
        return [
            [
                name,
                *(f"{curve[t]:.2f}" if t in curve else "–" for t in self.steps),
                "–" if self.near(name) is None else f"T = {self.near(name)}",
            ]
            for name, curve in self.curves.items()
        ]


def run_step_study(
    study: StepStudy, folder: Path, configs: Path, overrides: Sequence[str], report: Report
) -> StepResults:
    """Train what is not trained yet, convert, and measure.

    Args:
        study: what to do.
        folder: holds the runs.
        configs: folder of the recipes.
        overrides: ``key=value`` settings of every run.
        report: called with a line for each network.
    """
    cfg = _config(study.ann, configs, overrides)
    ann, tested = _trained(cfg, folder), first_samples(cfg, _TESTED)
    accuracy = 100.0 * evaluate(ann, TensorDataset(*tested)).accuracy
    report(f"the ordinary network: {accuracy:.2f} %")
    curves: dict[str, dict[int, float]] = {}
    why_not = {}
    for name, recipe in study.direct.items():
        direct = _config(recipe, configs, overrides)
        same = TensorDataset(*first_samples(direct, _TESTED))
        found = evaluate(_trained(direct, folder), same)
        curves[name] = {t: 100.0 * share for t, share in enumerate(found.accuracy_at, 1)}
        report(f"{name}: {100.0 * found.accuracy:.2f} %")
    if study.conversions:
        module = load_module(study.module)
        module.load_state_dict(ann.state_dict())
        calibration, _ = first_samples(cfg, _CALIBRATION, train=True)
        for curve in conversion_curves(
            module, calibration, *tested, study.steps, study.conversions
        ):
            name = f"converted: {curve.recipe}"
            curves[name] = curve.accuracy
            if curve.why_not:
                why_not[name] = curve.why_not
            report(f"{name}: {percent(curve, max(study.steps))} % at T = {max(study.steps)}")
    return StepResults(study.asks, len(tested[1]), accuracy, curves, why_not)


def _config(recipe: tuple[str, ...], configs: Path, overrides: Sequence[str]) -> TrainConfig:
    file, *settings = recipe
    return load_config(configs / file, [*settings, *overrides])


def _trained(cfg: TrainConfig, folder: Path) -> nn.Module:
    return finished(cfg, run_folder(cfg, folder)).model.eval()
