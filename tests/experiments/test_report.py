"""The report: complete, self-contained, and made from results.json alone."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rheobase.experiments.report import render, render_file

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page, checking that elements nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " " if data.strip() else ""

    def all(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


@pytest.fixture(scope="module")
def html(demo: Path) -> str:
    return (demo / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(demo: Path) -> dict:
    return json.loads((demo / "results.json").read_text(encoding="utf-8"))


def test_nothing_comes_from_outside(html: str) -> None:
    page = Page(html)
    links = page.all("src") + page.all("href") + page.all("xlink:href")
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\((?!#)|<script|<link|<iframe", html)


def test_every_section_and_figure_is_there(html: str) -> None:
    page = Page(html)
    for title in (
        "Learning",
        "What the spikes do",
        "One image, and the mistakes",
        "Synaptic operations and energy",
        "To keep in mind",
        "How this was made",
    ):
        assert f"<h2>{title}</h2>" in html
    for card in ("Test accuracy", "Energy per image", "Operations", "Wall time", "Parameters"):
        assert f"<h3>{card}" in html
    for figure in (
        "Accuracy against time steps",
        "Loss curves",
        "Firing rate of every layer",
        "Spike raster",
        "Attention on test image 0, a 7",
        "Confusion matrices",
        "Energy of every layer",
    ):
        assert f"<figcaption><b>{figure}" in html
    assert html.count("<figure>") == html.count('<svg role="img" aria-label="') == 7
    assert all(page.all("aria-label"))


def test_the_convention_and_the_reservations_are_stated(html: str) -> None:
    text = Page(html).text
    for words in (
        "45 nm",
        "4.6 pJ per MAC, 0.9 pJ per AC",
        "first layer is charged once as MAC",
        "5.11 / T = 1.28 at T = 4",
        "No memory energy",
        "as SpikingJelly estimates (24.96 pJ a byte)",
        "rheobase demo --folder",
        "--seed 0 --quick",
    ):
        assert words in text


def test_ids_are_unique_and_references_resolve(html: str) -> None:
    page = Page(html)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | {h[1:] for h in page.all("xlink:href")}
    assert used <= set(ids)


def test_figures_take_the_colours_of_the_page(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert all("var(--" in svg and "font-family" not in svg for svg in svgs)
    # Anything but the page's variables, transparency or none would vanish on one of the two.
    colours = {c for svg in svgs for c in re.findall(r"(?:fill|stroke): (#\w+)", svg)}
    assert colours == set()


def test_the_page_is_a_function_of_the_results(demo: Path, html: str, results: dict) -> None:
    assert render_file(demo / "results.json") == html
    other = copy.deepcopy(results)
    other["networks"]["spiking"]["accuracy"] = 0.4321
    assert "43.2%" in render(other) and "43.2%" not in html


def test_results_are_escaped(results: dict) -> None:
    other = copy.deepcopy(results)
    other["command"] = "rheobase demo --folder '<b>'"
    assert "--folder &#x27;&lt;b&gt;&#x27;" in render(other)


def test_results_agree_with_each_other(results: dict) -> None:
    spiking, ordinary = results["networks"]["spiking"], results["networks"]["ordinary"]
    assert spiking["parameters"] == ordinary["parameters"]
    assert len(spiking["accuracy_at"]) == spiking["steps"] == 4
    assert spiking["accuracy_at"][-1] == spiking["accuracy"] == spiking["epochs"][-1]["accuracy"]
    confusion = spiking["confusion"]
    assert sum(map(sum, confusion)) == results["data"]["test"]
    right = sum(confusion[i][i] for i in range(10))
    assert right / results["data"]["test"] == pytest.approx(spiking["accuracy"])
    # Twins: the same layers. (Without a softmax, attention multiplies in the cheaper order.)
    weighted = [
        [layer["macs"] for layer in network["layers"] if layer["kind"] != "product"]
        for network in (spiking, ordinary)
    ]
    assert weighted[0] == weighted[1] and len(weighted[0]) == 12
    assert len(spiking["layers"]) == len(ordinary["layers"]) == 14
    first, *rest = spiking["layers"]
    assert first["first"] and first["input"] == "analog" and first["steps"] == 1
    assert all(layer["steps"] == 4 for layer in rest)
    paper = 4.6 * first["macs"] + 0.9 * sum(layer["sops"] for layer in rest)
    assert spiking["energy"]["paper"]["pj"] == pytest.approx(paper)
    dense = sum(layer["macs"] for layer in ordinary["layers"])
    assert ordinary["energy"]["ann"]["pj"] == pytest.approx(4.6 * dense)
