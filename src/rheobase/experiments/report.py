"""The demo's report: one HTML page without any outside resource, made from its results alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rheobase._text import si
from rheobase.experiments import figures
from rheobase.experiments.page import html_page
from rheobase.measure import CONVENTIONS, break_even_rate

__all__ = ["render", "render_file"]

Results = dict[str, Any]

# Conventions that the Spikformer is charged under, in the page's words.
_COUNTINGS = {
    "paper": "Spikformer, as in the papers",
    "paper_every_step": "first layer at every step",
    "integers_as_mac": "integers as MAC",
}
# 45 nm, 8-bit integers (Horowitz 2014): multiply 0.2, add 0.03.
_INT8_MAC_PJ, _INT8_AC_PJ = 0.23, 0.03


def render_file(results: str | os.PathLike[str]) -> str:
    """The report of a ``results.json``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
    """
    return render(json.loads(Path(results).read_text(encoding="utf-8")))


def render(results: Results) -> str:
    """The report of a demo's results, as a whole HTML page."""
    sections = (_cards, _learning, _activity, _answers, _energy, _remarks, _making)
    title = "rheobase: a Spikformer beside its ANN twin"
    return html_page(title, (section(results) for section in sections))


def _cards(results: Results) -> str:
    spiking, ordinary = _both(results)
    pj = [spiking["energy"]["paper"]["pj"], ordinary["energy"]["ann"]["pj"]]
    dense = ordinary["energy"]["ann"]["macs"]
    batch = str(spiking["counted_images"])
    charged = spiking["energy"]["paper"]
    times = [[network["milliseconds_per_image"][n] for network in (spiking, ordinary)]
             for n in (batch, "1")]  # fmt: skip
    cards = [
        _card("Test accuracy", [f"{n['accuracy']:.1%}" for n in (spiking, ordinary)],
              f"{results['data']['test']:,} digits that neither network saw in training"),
        _card("Energy per image", [f"{si(value * 1e-12)}J" for value in pj],
              "arithmetic only; 45 nm, 4.6 pJ per MAC, 0.9 pJ per AC, first layer as MAC"),
        _card("Operations per image", [f"{si(charged['acs'])} AC", f"{si(dense)} MAC"],
              f"the Spikformer adds {si(charged['macs'])} MAC in its first layer"),
        _card("Wall time per image", [f"{value:.2f} ms" for value in times[0]],
              f"on this CPU, {batch} images at once; one alone: {times[1][0]:.1f} and "
              f"{times[1][1]:.1f} ms"),
        _card("Parameters", [f"{n['parameters']:,}" for n in (spiking, ordinary)],
              "the same shape; what differs is what the values are"),
    ]  # fmt: skip
    gap = 100 * (spiking["accuracy"] - ordinary["accuracy"])
    level = f"{abs(gap):.1f} points {'below' if gap < 0 else 'above'} its twin"
    return (
        "<h1>A Spikformer beside its ANN twin</h1>\n"
        f'<p class="lede">Two networks of one shape learnt {results["data"]["train"]:,} '
        f'handwritten digits side by side. The <b class="spiking">Spikformer</b> computes with '
        f'spikes over T = {spiking["steps"]} time steps; its <b class="ordinary">ANN twin</b> '
        "with ordinary activations (GELU, softmax attention) in one pass. On new digits the "
        f"Spikformer is right {spiking['accuracy']:.1%} of the time, {level}.</p>\n"
        f'<section class="cards" aria-label="Results">\n{"".join(cards)}</section>'
    )


def _learning(results: Results) -> str:
    spiking, ordinary = _both(results)
    by_steps = ", ".join(f"T = {t}: {a:.1%}" for t, a in enumerate(spiking["accuracy_at"], 1))
    last = [f"{n['title']} {n['epochs'][-1]['test_loss']:.3f}" for n in (spiking, ordinary)]
    return _section("Learning", "", [
        _figure(figures.accuracy_by_steps(results), f"Test accuracy by time steps: {by_steps}.",
                "Accuracy against time steps.", "The network may be stopped after any step: the "
                "answer is the mean of the logits so far. Dashed: the ANN twin's single pass."),
        _figure(figures.losses(results), f"Loss by epoch; last test loss: {', '.join(last)}.",
                "Loss curves.", "The training loss of the Spikformer is the mean over its time "
                "steps, each of which must classify by itself; the test loss is that of the mean "
                "logits."),
    ])  # fmt: skip


def _activity(results: Results) -> str:
    spiking, _ = _both(results)
    mean = sum(spiking["rates"].values()) / len(spiking["rates"])
    return _section("What the spikes do", "", [
        _figure(figures.firing_rates(results), f"Firing rate of every layer, {mean:.1%} on "
                "average over layers.", "Firing rate of every layer,",
                f"mean over {spiking['counted_images']} test images and all time steps."),
        _figure(figures.raster(results), "Spikes of sampled neurons of every layer over the "
                f"{spiking['steps']} time steps.", "Spike raster of one image.",
                f"Each box is a layer, its {spiking['steps']} columns the time steps, its rows "
                "neurons at even distances among those that fire at all; a mark is a spike."),
    ])  # fmt: skip


def _answers(results: Results) -> str:
    shown = results["shown"]
    answers = " and ".join(f"{n['title']} {n['answer']}" for n in _both(results))
    wrong = " ".join(f"{n['title']}: {_mistaken(n['confusion'])}" for n in _both(results))
    return _section("One image, and the mistakes", "", [
        _figure(figures.attention(results), f"Test image {shown['index']}, a {shown['label']}, "
                "with the attention that each of its tokens receives, and the attention maps of "
                "both networks.", f"Attention on test image {shown['index']}, a "
                f"{shown['label']}", f"(answers: {answers}). Left: the image, and how much "
                "attention each token receives. Right: the whole map of the last block, mean over "
                "heads and time. The Spikformer's map counts coinciding spikes of queries and "
                "keys; nothing normalises it."),
        _figure(figures.confusion(results), f"Confusion matrices. {wrong}", "Confusion matrices:",
                f"rows are labels, columns answers; mistakes are numbered. {wrong}"),
    ])  # fmt: skip


def _mistaken(counts: list[list[int]]) -> str:
    """The number of mistakes, and the commonest."""
    off = [(n, y, x) for y, row in enumerate(counts) for x, n in enumerate(row) if x != y]
    most, label, answer = max(off)
    total = sum(n for n, _, _ in off)
    if not total:
        return "no mistake."
    return f"{total} mistakes, most often {answer} for {label} ({most} times)."


def _energy(results: Results) -> str:
    spiking, ordinary = _both(results)
    twin = ordinary["energy"]["ann"]["pj"]
    rows = [
        (title, si(spiking["energy"][name]["macs"]), si(spiking["energy"][name]["acs"]),
         f"{si(spiking['energy'][name]['pj'] * 1e-12)}J",
         f"{spiking['energy'][name]['pj'] / twin:.0%}", CONVENTIONS[name].statement)
        for name, title in _COUNTINGS.items()
    ]  # fmt: skip
    rows.append(("ANN twin", si(ordinary["energy"]["ann"]["macs"]), "0", f"{si(twin * 1e-12)}J",
                 "100%", CONVENTIONS["ann"].statement))  # fmt: skip
    totals = _table(["counted", "MAC", "AC", "energy", "of the twin's", "what is charged"], rows)
    layers = _table(
        ["layer", "input", "rate", "MACs per step", "steps", "synaptic operations", "energy"],
        [
            (layer["name"], layer["input"], f"{layer['rate']:.1%}", f"{layer['macs']:,}",
             str(layer["steps"]), f"{layer['sops']:,.0f}", f"{layer['pj']['paper'] / 1e3:,.2f} nJ")
            for layer in spiking["layers"]
        ],
    )  # fmt: skip
    return _section(
        "Synaptic operations and energy",
        "<p>Energy here is counted, not measured: operations times the energy of one, and there "
        "is more than one way to count. The headline follows the papers: "
        f"{CONVENTIONS['paper'].constants}; {CONVENTIONS['paper'].statement}."
        "</p>",
        [_figure(figures.energy_by_layer(results), "Energy of every layer of both networks.",
                 "Energy of every layer", "under the papers' convention; @1 and @2 are the two "
                 "products of attention.")],
        totals + f"<details><summary>Every layer of the Spikformer</summary>{layers}</details>",
    )  # fmt: skip


def _remarks(results: Results) -> str:
    spiking, ordinary = _both(results)
    steps = spiking["steps"]
    rest = [layer for layer in spiking["layers"] if not layer["first"]]
    rate = sum(la["sops"] for la in rest) / sum(la["macs"] * la["steps"] for la in rest)
    even = break_even_rate(steps)
    verdict = (
        "No network can fire that much, so for T up to 5 this convention cannot find a spiking "
        "network more expensive than its twin"
        if even > 1
        else "Above that rate the spiking network costs more"
    )
    energies = {name: entry["pj"] * 1e-12 for name, entry in spiking["energy"].items()}
    twin8, spiking8 = _int8(ordinary["energy"]["ann"]), _int8(spiking["energy"]["paper"])
    twin_moved = ordinary["energy"]["spikingjelly"]["pj"] * 1e-12
    batch = str(spiking["counted_images"])
    slower = spiking["milliseconds_per_image"][batch] / ordinary["milliseconds_per_image"][batch]
    n, p = results["data"]["test"], spiking["accuracy"]
    points = [
        f"<b>The convention is kind to spikes.</b> The break-even rate is 5.11 / T = {even:.2f} "
        f"at T = {steps}. {verdict}. Measured here: {rate:.1%} of inputs per step (weighted by "
        f"MACs), {rate / even:.2f} of break-even.",
        "<b>No memory energy.</b> Moving weights and, at every step, membrane potentials usually "
        "costs more than the arithmetic; none of it is in these figures. Where every operation "
        "fetches its weight, as SpikingJelly estimates (24.96 pJ a byte), the Spikformer would be "
        f"charged {si(energies['spikingjelly'])}J and its twin {si(twin_moved)}J.",
        f"<b>Integers are not spikes.</b> The residual stream of Spikformer adds spikes up to "
        f"small integers; the papers count an integer as one addition. Charged as MACs instead, "
        f"the energy is {si(energies['integers_as_mac'])}J rather than "
        f"{si(energies['paper'])}J.",
        f"<b>Both could be cheaper.</b> In 8-bit integers (0.23 pJ per MAC, 0.03 pJ per AC) the "
        f"same operations would be charged {twin8}J for the twin and {spiking8}J for the "
        "Spikformer. Neither was quantised here.",
        f"<b>This computer gains nothing from sparsity:</b> the Spikformer takes {slower:.1f} "
        "times as long as its twin. Its savings need hardware that skips zeros.",
        f"<b>One seed, {n:,} test images:</b> the standard error of the accuracy is "
        f"{100 * (p * (1 - p) / n) ** 0.5:.1f} points.",
    ]
    items = "\n".join(f"<li>{point}</li>" for point in points)
    return f"<section>\n<h2>To keep in mind</h2>\n<ul>\n{items}\n</ul>\n</section>"


def _int8(charged: dict[str, float]) -> str:
    return si((charged["macs"] * _INT8_MAC_PJ + charged["acs"] * _INT8_AC_PJ) * 1e-12)


def _making(results: Results) -> str:
    spiking, ordinary = _both(results)
    seconds = sum(row["seconds"] for row in spiking["epochs"])
    machine = results["machine"]
    facts = {
        "Seed": str(results["seed"]),
        "Data": f"{results['data']['train']:,} training and {results['data']['test']:,} test "
        "images of MNIST (LeCun et al. 1998, CC BY-SA 3.0), part of the package",
        "Networks": f"{spiking['model']} and {ordinary['model']} with {results['overrides']}",
        "Training": f"{results['recipe']}; both together {seconds / 60:.1f} minutes",
        "Machine": f"{machine['system']}, {machine['cores']} cores; threads: {machine['threads']}",
        "Versions": ", ".join(f"{name} {v}" for name, v in results["versions"].items()),
    }
    listed = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    quick = "<p>A quick demo: a few steps, only to see it run.</p>" if results["quick"] else ""
    return (
        f"<section>\n<h2>How this was made</h2>\n{quick}<pre><code>"
        f"{escape(results['command'])}</code></pre>\n"
        f'<dl class="facts">{listed}</dl>\n'
        "<p>The same command with the same seed gives the same weights and the same numbers on "
        "this machine; times vary. All figures are in <code>results.json</code> beside this "
        "page.</p>\n</section>"
    )


def _both(results: Results) -> tuple[Any, Any]:
    return results["networks"]["spiking"], results["networks"]["ordinary"]


def _section(title: str, intro: str, shown: Iterable[str], after: str = "") -> str:
    inside = "\n".join(shown)
    return (
        f"<section>\n<h2>{title}</h2>\n{intro}\n"
        f'<div class="figures">\n{inside}\n</div>\n{after}</section>'
    )


def _card(title: str, values: Sequence[str], note: str) -> str:
    lines = "".join(
        f'<div><dt class="{kind}">{name}</dt><dd>{value}</dd></div>'
        for kind, name, value in zip(
            ("spiking", "ordinary"), ("Spikformer", "ANN twin"), values, strict=True
        )
    )
    return (
        f'<article class="card"><h3>{title}</h3><dl>{lines}</dl><small>{note}</small></article>\n'
    )


def _figure(svg: str, alt: str, head: str, caption: str) -> str:
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return (
        f"<figure>{labelled}<figcaption><b>{escape(head)}</b> {escape(caption)}"
        "</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [' class="text"' if len(cell) > 40 else "" for cell in rows[0]]
    top = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(head, kinds, strict=True)
    )
    lines = []
    for first, *cells in rows:
        shown = "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{shown}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
