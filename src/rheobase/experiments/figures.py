"""The report's figures as inline SVG, in the colours of the page (light and dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

__all__ = [
    "accuracy_by_steps",
    "attention",
    "confusion",
    "conversion_curves",
    "energy_by_layer",
    "firing_rates",
    "losses",
    "raster",
]

# Colours that no figure would use by itself; in the SVG each becomes a variable of the page.
_INK, _MUTED, _GRID, _PANEL = "#010101", "#020202", "#030303", "#060606"
_COLOUR = {"spiking": "#040404", "ordinary": "#050505"}
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _PANEL: "var(--panel)",
    _COLOUR["spiking"]: "var(--spiking)",
    _COLOUR["ordinary"]: "var(--ordinary)",
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "font.size": 9.5,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "rheobase",
    "text.color": _INK,
    "xtick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _GRID,
    "ytick.labelcolor": _MUTED,
}
# Drawn for the width of a phone; a wide screen shows them larger, never smaller.
_WIDTH = 3.9

Results = dict[str, Any]


def accuracy_by_steps(results: Results) -> str:
    """Test accuracy of the mean of the first t logits, beside the twin's one pass."""
    spiking, ordinary = results["networks"]["spiking"], results["networks"]["ordinary"]
    steps = range(1, len(spiking["accuracy_at"]) + 1)

    def draw(ax: Axes) -> None:
        ax.axhline(
            ordinary["accuracy"], color=_COLOUR["ordinary"], label=ordinary["title"], ls="--"
        )
        ax.plot(
            steps, spiking["accuracy_at"], "o-", color=_COLOUR["spiking"], label=spiking["title"]
        )
        for step, accuracy in zip(steps, spiking["accuracy_at"], strict=True):
            ax.annotate(
                f"{accuracy:.1%}", (step, accuracy), (8, -11), textcoords="offset points",
                fontsize=8.5, bbox={"fc": _PANEL, "ec": "none", "pad": 0.5},
            )  # fmt: skip
        ax.margins(x=0.2, y=0.22)
        ax.set_xlabel("time steps T")
        ax.set_ylabel("test accuracy")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        ax.legend(loc="lower right")

    return _one("accuracy_by_steps", draw, 3.0)


def conversion_curves(curves: Mapping[str, Mapping[int, float]], ann: float) -> str:
    """Accuracy in percent of converted networks against T, one line a recipe, beside the ANN's."""

    def draw(ax: Axes) -> None:
        ax.axhline(ann, color=_MUTED, ls="--", label="the ANN")
        for name, accuracy in curves.items():
            steps = sorted(accuracy)
            ax.plot(steps, [accuracy[t] for t in steps], "o-", label=name)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("time steps T")
        ax.set_ylabel("accuracy in %")
        ax.legend(fontsize=8.5)

    return _one("conversion_curves", draw, 3.0)


def learning_curves(name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Test accuracy in percent after every epoch, one line each."""

    def draw(ax: Axes) -> None:
        for label, accuracy in curves.items():
            ax.plot(range(1, len(accuracy) + 1), accuracy, "o-", label=label)
        ax.set_xlabel("epoch")
        ax.set_ylabel("accuracy in %")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=8.5)

    return _one(f"learning_curves_{re.sub(r'[^a-z0-9]+', '_', name.lower())}", draw, 3.0)


def losses(results: Results) -> str:
    """Loss on the training and on the test images after every epoch."""

    def draw(ax: Axes) -> None:
        for key, network in results["networks"].items():
            epochs = [row["epoch"] + 1 for row in network["epochs"]]
            for column, line, what in (("train_loss", "-", "training"), ("test_loss", ":", "test")):
                values = [row[column] for row in network["epochs"]]
                ax.plot(
                    epochs, values, line, color=_COLOUR[key], label=f"{network['title']}, {what}",
                    marker="." if len(epochs) < 3 else None,
                )  # fmt: skip
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("epoch")
        ax.set_ylabel("cross-entropy")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=8.5)

    return _one("losses", draw, 3.0)


def firing_rates(results: Results) -> str:
    """The mean rate of every neuron layer, first layer on top."""
    rates = results["networks"]["spiking"]["rates"]

    def draw(ax: Axes) -> None:
        names = [_short(name) for name in rates]
        ax.barh(names, list(rates.values()), color=_COLOUR["spiking"], height=0.62)
        for row, rate in enumerate(rates.values()):
            ax.annotate(
                f"{rate:.1%}", (rate, row), (3, 0), textcoords="offset points", va="center",
                fontsize=8.5,
            )  # fmt: skip
        ax.invert_yaxis()
        ax.margins(x=0.16)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("spikes per neuron and time step")
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    return _one("firing_rates", draw, 0.7 + 0.23 * len(rates))


def energy_by_layer(results: Results) -> str:
    """What every layer is charged, of both networks, under the paper's convention."""
    networks = results["networks"]
    spiking = networks["spiking"]["layers"]

    def draw(ax: Axes) -> None:
        names = [_short(layer["name"]) for layer in spiking]
        rows = range(len(names))
        # Twins: the same layers in the same order, under names of their own.
        twin = [layer["pj"]["ann"] for layer in networks["ordinary"]["layers"]]
        ax.barh(
            [row + 0.2 for row in rows], [pj / 1e6 for pj in twin], 0.36,
            color=_COLOUR["ordinary"], label=networks["ordinary"]["title"],
        )  # fmt: skip
        ax.barh(
            [row - 0.2 for row in rows], [layer["pj"]["paper"] / 1e6 for layer in spiking], 0.36,
            color=_COLOUR["spiking"], label=networks["spiking"]["title"],
        )  # fmt: skip
        ax.set_yticks(rows, names)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("µJ per image, charged for arithmetic")
        ax.legend(loc="lower right")

    return _one("energy_by_layer", draw, 0.7 + 0.27 * len(spiking))


def raster(results: Results) -> str:
    """When some neurons of every layer fire, for the image shown."""
    layers = results["networks"]["spiking"]["raster"]
    steps = len(results["networks"]["spiking"]["accuracy_at"])

    def draw(ax: Axes) -> None:
        for column, layer in enumerate(layers):
            left = column * (steps + 1)
            ax.add_patch(
                Rectangle((left + 0.4, -1), steps + 0.2, layer["rows"] + 1, fc=_GRID, alpha=0.3)
            )
            if layer["spikes"]:
                times, rows = zip(*layer["spikes"], strict=True)
                ax.scatter(
                    [left + 1 + t for t in times], rows, s=7, marker="|", linewidths=1.3,
                    color=_COLOUR["spiking"],
                )  # fmt: skip
        middles = [column * (steps + 1) + (steps + 1) / 2 for column in range(len(layers))]
        ax.set_xticks(middles, [_short(layer["name"]) for layer in layers], rotation=60)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.set_xlim(0, len(layers) * (steps + 1))
        ax.set_ylabel(f"{max(layer['rows'] for layer in layers)} neurons of each layer")
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)

    return _one("raster", draw, 3.2)


def attention(results: Results) -> str:
    """The image, and for both networks how much attention every token of it receives."""
    image = results["shown"]["image"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, 3.6), layout="constrained")
        grid = figure.subplots(2, 2)
        for row, key in enumerate(("spiking", "ordinary")):
            network = results["networks"][key]
            matrix = network["attention"]
            left, right = grid[row]
            _cells(left, image, _INK, gap=0.0)
            side = round(len(matrix) ** 0.5)
            received = [sum(column) for column in zip(*matrix, strict=True)]
            tokens = [received[i * side : (i + 1) * side] for i in range(side)]
            _cells(left, tokens, _COLOUR[key], scale=len(image) / side, strongest=0.75)
            left.set_title(f"{network['title']}: received")
            _cells(right, matrix, _COLOUR[key])
            right.set_title("map")
            right.set_ylabel("query token")
            right.set_xlabel("key token")
        return _svg(figure, "attention")


def confusion(results: Results) -> str:
    """Answers by label, of both networks."""
    networks = results["networks"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, 2.4), layout="constrained")
        for ax, (key, network) in zip(figure.subplots(1, 2), networks.items(), strict=True):
            counts = network["confusion"]
            most = max(map(max, counts))
            # The square root shows single mistakes beside a hundred right answers.
            _cells(ax, [[(n / most) ** 0.5 for n in row] for row in counts], _COLOUR[key])
            for y, row in enumerate(counts):
                for x, n in enumerate(row):
                    if n and x != y:
                        ax.text(x + 0.5, y + 0.5, n, ha="center", va="center", fontsize=7)
            ticks = [i + 0.5 for i in range(len(counts))]
            ax.set_xticks(ticks, [str(i) for i in range(len(counts))])
            ax.set_yticks(ticks, [str(i) for i in range(len(counts))])
            ax.tick_params(length=0, labelsize=8)
            ax.set_xlabel("answer")
            ax.set_title(network["title"])
        figure.axes[0].set_ylabel("label")
        return _svg(figure, "confusion")


def _cells(
    ax: Axes,
    values: list[list[float]],
    colour: str,
    scale: float = 1.0,
    strongest: float = 1.0,
    gap: float = 0.06,
) -> None:
    """A matrix as squares of one colour, the more opaque the larger the value."""
    most = max(map(max, values)) or 1.0
    side = (1 - gap) * scale
    squares, fills = [], []
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value > 0:
                squares.append(
                    Rectangle(((x + gap / 2) * scale, (y + gap / 2) * scale), side, side)
                )
                fills.append(to_rgba(colour, strongest * value / most))
    # One artist: laying out hundreds takes seconds.
    ax.add_collection(PatchCollection(squares, facecolors=fills, linewidths=0), autolim=False)
    ax.set_xlim(0, len(values[0]) * scale)
    ax.set_ylim(len(values) * scale, 0)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)


def _short(name: str) -> str:
    """A layer's name without what all have in common."""
    name = re.sub(r"\.(conv|neuron)\b", "", name)
    return re.sub(r"\b(stages|blocks)\.(\d+)", lambda m: f"{m[1][:-1]} {int(m[2]) + 1}", name)


def _one(name: str, draw: Callable[[Axes], None], height: float) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, height), layout="constrained")
        draw(figure.subplots())
        return _svg(figure, name)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element: themed, and with ids of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)  # the page's
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    own = f"{name}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{own}", svg)
