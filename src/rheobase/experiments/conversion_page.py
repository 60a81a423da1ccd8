"""The page of ``rheobase convert --report``: accuracy against T, and every layer of one network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from rheobase.convert import ConvertedNetwork, LayerReport
from rheobase.experiments.conversion_curve import Curve, percent

__all__ = ["curve_page"]

_COLUMNS = {
    "layer": "of the activation that the neurons replace",
    "line": "where it is written",
    "became": "the neuron",
    "spikes": "what it was seen to send",
    "threshold": "the mean of the layer's",
    "rate": "spikes for each neuron and step",
    "saturated": "share of neurons that fire at every step: a higher threshold helps",
    "dead": "share of channels that never fire",
    "clip": "lost above the threshold",
    "rounding": "lost between multiples of threshold / T: more steps help",
    "timing": "from spikes that came too early or too late: calibration helps",
    "error": "distance from the ANN's activation, with what the layers before have lost",
}


def curve_page(
    title: str,
    ann_accuracy: float,
    tested: int,
    curves: Sequence[Curve],
    net: ConvertedNetwork,
    steps: Sequence[int],
) -> str:
    """One HTML page without outside resources.

    Args:
        title: of the page.
        ann_accuracy: in percent.
        tested: number of test images.
        curves: of every recipe.
        net: the network whose layers are shown.
        steps: the columns of the table.
    """
    from rheobase.experiments.figures import conversion_curves as drawn  # matplotlib, when asked

    measured = {curve.recipe: curve.accuracy for curve in curves if curve.accuracy}
    css = files("rheobase.experiments").joinpath("report.css").read_text(encoding="utf-8")
    report = net.report()
    worst = max(report.layers, key=_own_error)
    accuracies = [[c.recipe, *(percent(c, t) for t in steps)] for c in curves]
    why_not = [f"<li>{escape(c.recipe)}: {escape(c.why_not)}</li>" for c in curves if c.why_not]
    legend = [f"<li><b>{name}</b>: {escape(what)}</li>" for name, what in _COLUMNS.items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Accuracy of the mean output after T steps, in percent of {tested} test images. The "
        f"ANN: {ann_accuracy:.2f}.</p>",
        _table(["recipe", *(f"T = {t}" for t in steps)], accuracies),
        *(["<p>Not converted, or not for every T:</p><ul>", *why_not, "</ul>"] if why_not else []),
        f'<div style="max-width: 32rem">{drawn(measured, ann_accuracy)}</div>',
        f"<h2>Every layer of {escape(report.recipe)} at T = {report.T}</h2>",
        f"<p>{escape(report.paper)}. Over {report.samples} calibration inputs the output is off by "
        f"{report.output_error[-1]:.4f} of the ANN's; most is lost in {escape(worst.name)}: "
        f"{_own_error(worst):.4f} of its activation by clipping, rounding and timing.</p>",
        _table(_COLUMNS, [_cells(layer) for layer in report.layers]),
        "<p>The last four are relative to the layer's mean activation.</p><ul>",
        *legend,
        "</ul>",
        "<h2>What the layers with weights are given</h2>",
        "<p>Layers that are not here see the input alone, and are computed once.</p>",
        _table(["layer", "input"], [[*pair] for pair in report.spikeness.items()]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _own_error(layer: LayerReport) -> float:
    return layer.clip_error + layer.rounding_error + layer.timing_error


def _cells(one: LayerReport) -> list[str]:
    """One for each of the columns."""
    shares = (one.saturated, one.dead)
    errors = (one.clip_error, one.rounding_error, one.timing_error, one.error)
    return [
        one.name, one.line.rsplit("/", 1)[-1], one.became, one.spikes, f"{one.threshold[1]:.4g}",
        f"{one.rate:.4f}", *(f"{100.0 * share:.1f} %" for share in shares),
        *(f"{error:.4f}" for error in errors),
    ]  # fmt: skip


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Scrolls by itself where it is too wide."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    lines = "\n".join(f"<tr>{row}</tr>" for row in cells)
    rows_of_all = f"<thead><tr>{top}</tr></thead>\n<tbody>{lines}</tbody>"
    return f'<div class="scroll"><table>{rows_of_all}</table></div>'
