"""A real sentence transformer, converted: how near its embeddings stay, and for how many spikes.

``python -m rheobase.experiments.sentences FILE`` takes a text with one sentence a line (at least
40), calibrates on sixteen of them, and prints a table in Markdown: for each conversion of
all-MiniLM-L6-v2 the least and mean cosine to the original embedding of 24 other sentences, and the
spikes sent for each activation (all steps together, sentences without padding). STA has thresholds
for each key of attention, so it is measured on sentences of one length: the text's commonest.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheobase.convert import NeuronRule, Preparation, Statistic, convert
from rheobase.convert.transformers import count_spikes
from rheobase.models.bert import Bert, sentence_embedding
from rheobase.models.minilm import load_minilm

__all__ = ["CONVERSIONS", "Conversion", "Row", "measure"]

CALIBRATION, TESTED = 16, 24


@dataclass(frozen=True)
class Conversion:
    """One way to convert.

    Attributes:
        name: shown in the table.
        recipe: of `rheobase.convert.convert`.
        steps: numbers of steps to be tried, ascending.
        choices: axes that differ from the recipe's.
        one_length: whether the converted network takes sentences of one length alone.
    """

    name: str
    recipe: str
    steps: tuple[int, ...] = (1,)
    choices: dict[str, Any] = field(default_factory=dict)
    one_length: bool = False


@dataclass(frozen=True)
class Row:
    """What one conversion gave at one number of steps."""

    name: str
    steps: int
    least: float
    mean: float
    spikes: float

    def __str__(self) -> str:
        """A row of the table."""
        cosines = f"{self.least:.4f} | {self.mean:.4f}"
        return f"| {self.name} | {self.steps} | {cosines} | {self.spikes:.3f} |"


def _code(kind: str, k: int, encode: str = "encode_linear_inputs") -> dict[str, Any]:
    passes = ("write_out_attention", encode)
    return {
        "neuron": NeuronRule(kind, levels=k),
        "prepare": Preparation(passes=passes, operators=("accumulated",)),
    }


def _codes() -> Iterator[Conversion]:
    names = {
        "integer_code": "bits (SpikingBrain)",
        "signed_digits": "signed digits",
        "greedy_code": "greedy, dead zone",
    }
    for kind, name in names.items():
        for k in (1, 2, 3, 4, 6, 8):
            yield Conversion(f"few spikes: {name}, k={k}", "integer_code", (1,), _code(kind, k))
    for k in (3, 4, 6):
        choices = _code("greedy_code", k, "encode_operands")
        yield Conversion(f"the same, products too, k={k}", "integer_code", (1,), choices)


def _to_maximum(levels: int) -> dict[str, Any]:
    largest = Statistic("signed_percentile", percentile=100.0, scale=2.0 ** (1 - levels))
    return {"statistic": largest, "neuron": NeuronRule("multi_threshold", levels=levels)}


def _spikellm(steps: int, share: float) -> Conversion:
    choices = {
        "statistic": Statistic("saliency", percentile=share),
        "neuron": NeuronRule("salient_code", levels=steps),
    }
    return Conversion(f"SpikeLLM, salient channels in {steps} steps", "spikellm", (1,), choices)


CONVERSIONS: tuple[Conversion, ...] = (
    *_codes(),
    _spikellm(2, 90.0),
    _spikellm(4, 95.0),
    Conversion("ECMT, released code", "ecmt_released", (1, 4, 8, 16)),
    Conversion("ECMT, paper's thresholds", "ecmt", (1, 4, 8)),
    Conversion("ECMT, up to the maximum, 10 levels", "ecmt", (1, 4, 8, 16), _to_maximum(10)),
    Conversion("STA, sentences of one length", "sta", (1, 4), one_length=True),
    Conversion(
        "SpikeZIP-TF, 256 levels, not fine-tuned",
        "spikezip_tf",
        (16, 32, 64, 128),
        {"neuron": NeuronRule("st_bif", levels=256)},
    ),
)


@torch.no_grad()
def measure(
    net: Bert, calibration: Tensor, sentences: Sequence[Tensor], conversion: Conversion
) -> Iterator[Row]:
    """Convert, and compare embeddings at every number of steps.

    Args:
        net: the trained encoder.
        calibration: numbers of words ``[N, L]``.
        sentences: numbers of words, each ``[1, L]`` without padding.
        conversion: how.
    """
    most = conversion.steps[-1]
    snn = convert(net, calibration, recipe=conversion.recipe, T=most, **conversion.choices)
    targets = [_embedding(net(ids)) for ids in sentences]
    for steps in conversion.steps:
        cosines, spikes, values = [], 0.0, 0.0
        for ids, target in zip(sentences, targets, strict=True):
            cosines.append(float(_embedding(snn.mean_output(ids, steps)) @ target))
        for ids in sentences[::4]:
            count = count_spikes(snn, ids, steps)
            spikes, values = spikes + count.spikes, values + count.values
        mean = sum(cosines) / len(cosines)
        yield Row(conversion.name, steps, min(cosines), mean, spikes / values)


def of_one_length(sentences: Sequence[Tensor]) -> list[Tensor]:
    """Those of the commonest length, in their order.

    Raises:
        ValueError: they are too few to test and to calibrate.
    """
    lengths = Counter(ids.shape[1] for ids in sentences)
    length, count = lengths.most_common(1)[0]
    if count <= TESTED:
        raise ValueError(
            f"{count} sentences have the commonest length, {length} words; more than {TESTED} are "
            "needed: give a longer text"
        )
    return [ids for ids in sentences if ids.shape[1] == length]


def _embedding(states: Tensor) -> Tensor:
    """Of one sentence without padding, ``[1, L, dim]`` to ``[dim]``."""
    return sentence_embedding(states, states.new_ones(states.shape[:2]))[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="a text file, one sentence a line")
    parser.add_argument("--only", default="", help="conversions whose name contains this")
    options = parser.parse_args(arguments)
    lines = [line.strip() for line in options.text.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    if len(lines) < CALIBRATION + TESTED:
        parser.error(f"{options.text} has {len(lines)} sentences; {CALIBRATION + TESTED} are used")
    net, words = load_minilm()
    calibration, _ = words(lines[TESTED : TESTED + CALIBRATION])
    sentences = [words([line])[0] for line in lines[:TESTED]]
    print("| conversion | T | least cosine | mean cosine | spikes / activation |")
    print("|---|---|---|---|---|")
    for conversion in CONVERSIONS:
        if options.only not in conversion.name:
            continue
        given, tested = calibration, sentences
        if conversion.one_length:
            alike = of_one_length([words([line])[0] for line in lines])
            tested, rest = alike[:TESTED], alike[TESTED : TESTED + CALIBRATION]
            given = torch.cat(rest)
        for row in measure(net, given, tested, conversion):
            print(row, flush=True)


if __name__ == "__main__":
    main()
