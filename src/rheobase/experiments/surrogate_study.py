"""How far, and how fast, networks learn by one surrogate gradient or another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean, stdev

from rheobase.experiments.kept_runs import finished, run_folder
from rheobase.experiments.page import html_page, html_table
from rheobase.train import load_config

__all__ = ["SurrogateResults", "SurrogateStudy", "run_surrogate_study"]

Report = Callable[[str], None]


@dataclass(frozen=True)
class SurrogateStudy:
    """The same network by several surrogates.

    Attributes:
        asks: what it is to find out, and who asks.
        recipes: a file for each data set, by the name of the data.
        neuron: keyword arguments of the neuron besides its surrogate, as a recipe writes them.
        surrogates: how a recipe writes each, by the name of its line.
    """

    asks: str
    recipes: Mapping[str, str]
    neuron: str
    surrogates: Mapping[str, str]


@dataclass(frozen=True)
class SurrogateResults:
    """What was measured, accuracies in percent.

    Attributes:
        asks: of the study.
        curves: data -> surrogate -> test accuracy after every epoch, a row for each seed.
    """

    asks: str
    curves: dict[str, dict[str, list[list[float]]]]

    def table(self) -> str:
        """As a Markdown table: the end, and the mean over epochs, which says how fast it came."""
        lines = []
        for data in self.curves:
            head = self._head(data)
            lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(row)} |" for row in self._rows(data)]
            lines.append("")
        return "\n".join(lines)

    def page(self, title: str) -> str:
        """As an HTML page, with a figure for each data set."""
        from rheobase.experiments.figures import learning_curves as drawn  # matplotlib

        body = [
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(self.asks)}</p>",
            "<p>Test accuracy in percent: after the last epoch, and its mean over epochs, which "
            "is the higher the sooner a network learns.</p>",
        ]
        for data, found in self.curves.items():
            means = {name: _mean_curve(rows) for name, rows in found.items()}
            body += [
                f"<h2>{escape(data)}</h2>",
                html_table(self._head(data), self._rows(data)),
                f'<div style="max-width: 32rem">{drawn(data, means)}</div>',
            ]
        return html_page(title, body)

    def _head(self, data: str) -> list[str]:
        return [f"{data}: surrogate", "last epoch", "mean over epochs", "seeds"]

    def _rows(self, data: str) -> list[list[str]]:
        """The best first."""
        found = self.curves[data]
        best_first = sorted(found, key=lambda name: -_mean_curve(found[name])[-1])
        return [
            [
                name,
                _spread([row[-1] for row in found[name]]),
                _spread([mean(row) for row in found[name]]),
                str(len(found[name])),
            ]
            for name in best_first
        ]


def run_surrogate_study(
    study: SurrogateStudy,
    folder: Path,
    configs: Path,
    overrides: Sequence[str],
    report: Report,
    seeds: int,
) -> SurrogateResults:
    """Train what is not trained yet; arguments as `rheobase.experiments.studies.run_study` has."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for data, recipe in study.recipes.items():
        found: dict[str, list[list[float]]] = {}
        for name, surrogate in study.surrogates.items():
            neuron = f"model.overrides.neuron_kwargs={{{study.neuron}, surrogate: {surrogate}}}"
            found[name] = []
            for seed in range(seeds):
                cfg = load_config(configs / recipe, [neuron, f"seed={seed}", *overrides])
                epochs = finished(cfg, run_folder(cfg, folder)).epochs
                found[name].append([100.0 * row["accuracy"] for row in epochs])
                report(f"{data}, {name}, seed {seed}: {found[name][-1][-1]:.2f} %")
        curves[data] = found
    return SurrogateResults(study.asks, curves)


def _mean_curve(rows: Sequence[Sequence[float]]) -> list[float]:
    return [mean(epoch) for epoch in zip(*rows, strict=True)]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
