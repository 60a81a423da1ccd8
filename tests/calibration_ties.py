"""Ties in the run that first membranes are calibrated by, found one by one.

A first membrane is a mean of spikes counted over the calibration samples. A spike of that run whose
membrane was within its last bits of the threshold may have been sent by the released code and not
by ours, or the other way round: then that neuron starts a 128th of its threshold off, and with it
every sample that comes after. Where a file has no first membranes, the ties that the released run
decided otherwise are searched for, each flipped by a change of one current in its last bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conversion_files import neurons
from conversion_ties import Tie, changed_currents, is_tie, relative_errors, ties_of, total
from rheobase.convert import ConvertedNetwork
from rheobase.convert.post import calibrate_after
from rheobase.neurons import record_membranes

_SAMPLES = 128  # that calibration runs on


def flip_ties_of_calibration(net: ConvertedNetwork, x: Tensor, official: Tensor) -> None:
    """Calibrate anew with those ties flipped that bring the network's output to the official.

    A tie stays flipped only if the output comes much nearer; ends when only ties of the tested
    samples themselves are left, or when no tie of calibration helps.
    """
    flipped: list[Tie] = []
    off = _off(net, x, official)
    if _explained(net, x, official, off):
        return
    ties = _calibrate(net, flipped)
    while ties:
        tie = ties.pop(0)
        behind = _calibrate(net, [*flipped, tie])
        new = _off(net, x, official)
        if new.sum() < 0.7 * off.sum():
            off, ties = new, behind  # what comes after the flipped spike is another run
            flipped.append(tie)
            if _explained(net, x, official, off):
                return
    _calibrate(net, flipped)


def _off(net: ConvertedNetwork, x: Tensor, official: Tensor) -> Tensor:
    """The error of every sample that is off, 0 elsewhere; ``[N]``."""
    apart = relative_errors(total(net, net.T)(x), official, official)
    return torch.where(apart > 1e-4, apart, 0.0)


def _explained(net: ConvertedNetwork, x: Tensor, official: Tensor, off: Tensor) -> bool:
    """Whether all that are off, few, are ties of their own."""
    samples = off.nonzero().flatten().tolist()
    run = total(net, net.T)
    return len(samples) <= len(x) // 40 and all(
        is_tie(net, run, x[i : i + 1], official[i : i + 1]) for i in samples
    )


def _calibrate(net: ConvertedNetwork, flipped: list[Tie]) -> list[Tie]:
    """Calibrate first membranes from nothing; the ties that the run met, layer after layer."""
    assert net.origin is not None
    modules = neurons(net)
    for module in modules:
        module.neuron.set_start(torch.zeros_like(module.size.detach()))
    with changed_currents(modules, flipped, _SAMPLES), record_membranes(net.body) as membranes:
        calibrate_after(net, net.origin.ann, net.origin.inputs)
    names = {f"{module.site.name}.neuron": i for i, module in enumerate(modules)}
    known = {(tie.layer, tie.place) for tie in flipped}
    found: dict[tuple[int, tuple[int, ...]], Tie] = {}
    for membrane in membranes:
        for tie in ties_of(membrane, names[membrane.name]):
            key = tie.layer, tie.place
            nearer = key not in found or abs(tie.change) < abs(found[key].change)
            if tie.other_count and key not in known and nearer:
                found[key] = tie
    return sorted(found.values(), key=lambda tie: (tie.layer, abs(tie.change)))
