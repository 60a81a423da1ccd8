"""How far spikes travel between the cores of a mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rheobase.deploy.mapping import Mapping, axons

__all__ = ["Traffic", "traffic"]


@dataclass(frozen=True)
class Traffic:
    """Spikes between cores, of one image.

    Attributes:
        packets: spikes, counted once for each core that they go to.
        crossing: of these, the ones whose core is another than their own.
        across: steps from tile to tile, east or west, of all of them.
        along: north or south.
    """

    packets: float
    crossing: float
    across: float
    along: float


def traffic(mapping: Mapping) -> Traffic:
    """Count packets and hops, cores being filled row by row in the order of the populations.

    A core is sent a spike once, whatever it does with it. The cores that spikes of a population
    come from and go to are taken as independent: each spike travels the mean distance between them.
    Spikes of the input and of encoders come from outside: they are packets, and travel no hops.

    Raises:
        ValueError: nothing is known of the chip's mesh.
    """
    if mapping.chip.mesh is None:
        raise ValueError(f"no mesh of {mapping.chip.name} is known")
    first, places = 0, {}
    for one in mapping.placed:
        places[one.population.name] = range(first, first + one.cores)
        first += one.cores
    spikes = {one.name: one.spikes for one in mapping.circuit.populations}
    spikes["input"] = mapping.circuit.input_spikes
    packets = crossing = across = along = 0.0
    for one in mapping.placed:
        here = places[one.population.name]
        for projection in one.population.inputs:
            sent = spikes.get(projection.source, 0.0)
            inputs = one.cores * axons(projection, one.tile, mapping.chip)
            count = sent * inputs / math.prod(projection.connections.inputs)
            packets += count
            there = places.get(projection.source)
            if there is not None:
                same, x, y = _apart(there, here, mapping.chip.mesh)
                crossing += count * (1.0 - same)
                across += count * x
                along += count * y
            else:
                crossing += count
    return Traffic(packets, crossing, across, along)


def _apart(a: range, b: range, mesh: tuple[int, int, int]) -> tuple[float, float, float]:
    """Share of pairs that are one core, and their mean distance in tiles, each way."""
    width, height, together = mesh
    same = len(range(max(a.start, b.start), min(a.stop, b.stop))) / (len(a) * len(b))
    tiles = [[_tile(core // together, width, height) for core in cores] for cores in (a, b)]
    x, y = (_mean_distance(*([tile[axis] for tile in part] for part in tiles)) for axis in (0, 1))
    return same, x, y


def _mean_distance(a: list[int], b: list[int]) -> float:
    """Between two places, one of each."""
    size = 1 + max(*a, *b)
    counts = [torch.bincount(torch.tensor(part), minlength=size).double() for part in (a, b)]
    apart = (torch.arange(size)[:, None] - torch.arange(size)).abs().double()
    return float(counts[0] @ apart @ counts[1]) / (len(a) * len(b))


def _tile(number: int, width: int, height: int) -> tuple[int, int]:
    """Column and row; a chip behind the first stands east of it."""
    chip, inside = divmod(number, width * height)
    return chip * width + inside % width, inside // width
