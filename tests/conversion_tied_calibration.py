"""A calibration of first membranes whose near ties fell as in the released run.

Every first membrane is a count of spikes over 128 inputs: one spike that stood within the last bits
of its threshold, and fell otherwise on the machine of the released run, moves it by a 128th of a
threshold, and with it the spikes of many test samples. Where a file has outputs but no membranes,
the ties of the calibration run are tried one by one, nearest first, and those are kept that explain
most of the samples that differ. What then still differs must be a tie of its own. (The released
code, run on another machine than that of the files, differs in as many samples as our first run.)
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from conversion_files import neurons
from conversion_ties import (
    Tie,
    changed_currents,
    is_tie,
    relative_errors,
    ties_of,
    total,
)
from rheobase.convert import ConvertedNetwork, convert
from rheobase.convert.post import calibrate_after
from rheobase.neurons import record_membranes

SAMPLES = 128  # that the released calibration runs
MOST_TRIED = 150  # ties for each that is found
MOST_FOUND = 6


def calibrated_as_released(
    net: nn.Module, data: Tensor, steps: int, choices: dict[str, Any], x: Tensor, official: Tensor
) -> tuple[ConvertedNetwork, list[int]]:
    """The network with its calibration's ties as the official outputs want them.

    And the samples that differ still, and by no tie of their own.
    """
    plain = convert(net, data, T=steps, **{**choices, "post": ()})
    plain.recipe = replace(plain.recipe, post=choices["post"])
    found: list[Tie] = []
    while True:
        best = _calibrated(plain, data, found)
        off = _differing(best, x, official)
        run = total(best, steps)
        wrong = [
            i for i in off.tolist() if not is_tie(best, run, x[i : i + 1], official[i : i + 1])
        ]
        if not wrong or len(found) == MOST_FOUND:
            return best, wrong
        better = _best_tie(plain, data, found, x, official, off)
        if better is None:
            return best, wrong
        found.append(better)


def _best_tie(
    plain: ConvertedNetwork, data: Tensor, found: list[Tie], x: Tensor, official: Tensor,
    off: Tensor,
) -> Tie | None:  # fmt: skip
    """The tie that leaves fewest of the samples differing; None if none leaves fewer."""
    best, fewest = None, len(off)
    for tie in _ties(plain, data, found)[:MOST_TRIED]:
        trial = _calibrated(plain, data, [*found, tie])
        if len(_differing(trial, x[off], official[off], official)) >= fewest:
            continue
        left = len(_differing(trial, x, official))
        if left < fewest:
            best, fewest = tie, left
        if fewest <= len(off) // 2:
            break
    return best


def _calibrated(plain: ConvertedNetwork, data: Tensor, ties: list[Tie]) -> ConvertedNetwork:
    net = copy.deepcopy(plain)
    with torch.no_grad(), changed_currents(neurons(net), ties, SAMPLES):
        calibrate_after(net, plain.origin.ann, data)
    return net


def _ties(plain: ConvertedNetwork, data: Tensor, found: list[Tie]) -> list[Tie]:
    """Those of the calibration's runs, nearest first."""
    net = copy.deepcopy(plain)
    modules = neurons(net)
    layers = {f"{module.site.name}.neuron": i for i, module in enumerate(modules)}
    changed = changed_currents(modules, found, SAMPLES)
    with torch.no_grad(), changed, record_membranes(net.body) as membranes:
        calibrate_after(net, plain.origin.ann, data)
    ties = []
    for membrane in membranes:
        layer = layers[membrane.name]
        size = float(modules[layer].size.detach().max())
        ties += [(abs(tie.change) / size, tie) for tie in ties_of(membrane, layer)]
    known = [(tie.layer, tie.place) for tie in found]
    new = [pair for pair in ties if (pair[1].layer, pair[1].place) not in known]
    return [tie for _, tie in sorted(new, key=lambda pair: pair[0])]


def _differing(
    net: ConvertedNetwork, x: Tensor, official: Tensor, scale: Tensor | None = None
) -> Tensor:
    """The samples whose outputs are not the official ones."""
    apart = relative_errors(total(net, net.T)(x), official, official if scale is None else scale)
    return (apart > 1e-4).nonzero().flatten()
