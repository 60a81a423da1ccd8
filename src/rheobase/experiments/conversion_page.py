"""The page of ``rheobase convert --report``: accuracy against T, and every layer of one network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rheobase.convert import ConvertedNetwork, LayerReport
from rheobase.experiments.conversion_curve import Curve, percent
from rheobase.experiments.page import html_page, html_table

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
    report = net.report()
    worst = max(report.layers, key=_own_error)
    accuracies = [[c.recipe, *(percent(c, t) for t in steps)] for c in curves]
    why_not = [f"<li>{escape(c.recipe)}: {escape(c.why_not)}</li>" for c in curves if c.why_not]
    legend = [f"<li><b>{name}</b>: {escape(what)}</li>" for name, what in _COLUMNS.items()]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Accuracy of the mean output after T steps, in percent of {tested} test images. The "
        f"ANN: {ann_accuracy:.2f}.</p>",
        html_table(["recipe", *(f"T = {t}" for t in steps)], accuracies),
        *(["<p>Not converted, or not for every T:</p><ul>", *why_not, "</ul>"] if why_not else []),
        f'<div style="max-width: 32rem">{drawn(measured, ann_accuracy)}</div>',
        f"<h2>Every layer of {escape(report.recipe)} at T = {report.T}</h2>",
        f"<p>{escape(report.paper)}. Over {report.samples} calibration inputs the output is off by "
        f"{report.output_error[-1]:.4f} of the ANN's; most is lost in {escape(worst.name)}: "
        f"{_own_error(worst):.4f} of its activation by clipping, rounding and timing.</p>",
        html_table(_COLUMNS, [_cells(layer) for layer in report.layers]),
        "<p>The last four are relative to the layer's mean activation.</p><ul>",
        *legend,
        "</ul>",
        "<h2>What the layers with weights are given</h2>",
        "<p>Layers that are not here see the input alone, and are computed once.</p>",
        html_table(["layer", "input"], [[*pair] for pair in report.spikeness.items()]),
    ]
    return html_page(title, body)


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
