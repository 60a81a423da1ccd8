"""Whether a circuit fits a chip, and how: which neurons share a core, and what limits them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rheobase.deploy.chips import Chip
from rheobase.deploy.circuit import Circuit, Population, Projection
from rheobase.deploy.memory import inputs_of_tile, tile_bits

__all__ = ["Mapping", "Placed", "axons", "map_circuit"]

_DYNAMICS = {
    "leaky": "its neurons lose a share of their membrane at each step",
    "other": "its neurons do more than to integrate and leak",
}


@dataclass(frozen=True)
class Placed:
    """One population on the cores of a chip.

    Attributes:
        population: which.
        cores: that it takes, each of its own.
        tile: neurons of one of them, ``(channels, *positions)``.
        inputs: different inputs of that core.
        bits: memory of that core for synapses.
        copies: neurons that do nothing but send a spike to one core more.
        bounds: cores that each resource alone would ask for, at least.
    """

    population: Population
    cores: int
    tile: tuple[int, ...]
    inputs: int
    bits: int
    copies: int
    bounds: dict[str, int]

    @property
    def limit(self) -> str:
        """The resource that asks for most cores."""
        return max(self.bounds, key=lambda name: self.bounds[name])


@dataclass(frozen=True)
class Mapping:
    """A circuit on a chip.

    Attributes:
        chip: which.
        circuit: which.
        placed: its populations but the encoders, which stay beside the chip.
        obstacles: what keeps it off the chip, whatever its size.
    """

    chip: Chip
    circuit: Circuit
    placed: tuple[Placed, ...]
    obstacles: tuple[str, ...]

    @property
    def cores(self) -> int:
        """Cores of all populations, and those of copies."""
        copies = sum(math.ceil(one.copies / self.chip.neurons) for one in self.placed)
        return sum(one.cores for one in self.placed) + copies

    @property
    def neurons(self) -> int:
        """Neurons on the chip, copies included."""
        return sum(one.population.neurons + one.copies for one in self.placed)

    @property
    def synapses(self) -> int:
        """Synapses on the chip."""
        return sum(one.population.synapses for one in self.placed)

    @property
    def depth(self) -> int:
        """Steps that a spike takes from the input to the last population, copies included."""
        arrived: dict[str, int] = {}
        for one in self.placed:
            name = one.population.name
            before = (arrived.get(p.source, 0) for p in one.population.inputs if p.source != name)
            arrived[name] = max(before, default=0) + 1 + (1 if one.copies else 0)
        return max(arrived.values(), default=1)

    @property
    def bits(self) -> int:
        """Memory of all their synapses, in bits."""
        return sum(one.bits * one.cores for one in self.placed)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose weights the chip holds."""
        inputs = (projection for one in self.placed for projection in one.population.inputs)
        return tuple(dict.fromkeys(layer for one in inputs for layer in one.layers))

    @property
    def chips(self) -> int:
        """How many chips it takes."""
        shared = self.chip.synapses.chip_bits
        by_memory = math.ceil(self.bits / shared) if shared else 0
        return max(math.ceil(self.cores / self.chip.cores), by_memory)

    @property
    def fits(self) -> bool:
        """Whether one chip takes it as it is."""
        return not self.obstacles and self.chips <= 1


def map_circuit(circuit: Circuit, chip: Chip) -> Mapping:
    """Share a circuit's populations out among cores, as few as tiles of neighbours allow.

    Neurons of a core are neighbours: some channels of a block of positions, so that they share
    inputs. Every core has neurons of one population. Where a chip limits neither inputs nor memory
    of a core, neurons are filled in one after another.

    >>> from rheobase.deploy import CHIPS
    >>> import torch
    >>> from rheobase.deploy.circuit import circuit_of
    >>> from rheobase.models import create_model
    >>> net = create_model("plif_net_mnist", width=8, hidden=32)
    >>> found = map_circuit(circuit_of(net, torch.rand(1, 1, 28, 28)), CHIPS["loihi"])
    >>> found.fits, [(one.population.name, one.cores, one.limit) for one in found.placed][1]
    (True, ('conv_fc.6', 2, 'neurons'))
    """
    placed: list[Placed] = []
    refused: list[str] = []
    sent: dict[str, int] = {}  # by population: inputs of cores that its neurons drive
    for population in reversed(circuit.populations):
        if population.kind == "encoder":
            continue
        driven = sent.get(population.name, 0)
        found = _place(population, chip, driven)
        if isinstance(found, str):
            refused.append(found)
            continue
        placed.append(found)
        for projection in population.inputs:
            inputs = found.cores * axons(projection, found.tile, chip)
            sent[projection.source] = sent.get(projection.source, 0) + inputs
    obstacles = (*circuit.obstacles, *reversed(refused))
    return Mapping(chip, circuit, tuple(reversed(placed)), obstacles)


def axons(projection: Projection, tile: tuple[int, ...], chip: Chip) -> int:
    """Inputs of a core that a projection to its tile takes; two where weights have both signs."""
    each = chip.axons_per_input if projection.layers else 1
    return each * inputs_of_tile(projection.connections, tile)


def _place(population: Population, chip: Chip, driven: int) -> Placed | str:
    """A population on cores, or why that cannot be."""
    order = ("integrator", "leaky", "other")
    if order.index(population.dynamics) > order.index(chip.dynamics):
        return (
            f"{population.name}: {_DYNAMICS[population.dynamics]}; {chip.name} has no such neurons"
        )
    circuits = 1
    if chip.circuit_inputs is not None:
        needed = _inputs(population, (1,) * len(population.shape), chip)
        circuits = max(1, math.ceil(needed / chip.circuit_inputs))
        if circuits > chip.joined:
            most = chip.circuit_inputs * chip.joined
            return f"{population.name}: a neuron takes {needed:,} inputs, {chip.name} has {most:,}"
    room = chip.neurons // circuits
    bounds = {"neurons": math.ceil(population.neurons / room)}
    if chip.outputs is not None and driven and population.neurons:
        room = min(room, max(1, math.floor(chip.outputs * population.neurons / driven)))
        bounds["outputs"] = math.ceil(driven / chip.outputs)
    copies = driven if chip.single_target and driven > population.neurons else 0
    if chip.inputs is None and chip.synapses.core_bits is None:
        size = min(room, population.neurons)
        cores = math.ceil(population.neurons / room)
        return _placed(population, chip, cores, _row(population.shape, size), copies, bounds)
    best: tuple[int, tuple[int, ...]] | None = None
    for tile in _tiles(population, chip, room):
        cores = math.prod(
            math.ceil(size / part) for size, part in zip(population.shape, tile, strict=True)
        )
        if best is None or cores < best[0]:
            best = (cores, tile)
    if best is None:
        least = (1,) * len(population.shape)
        needed = _inputs(population, least, chip)
        if chip.inputs is not None and needed > chip.inputs:
            return (
                f"{population.name}: a neuron takes {needed:,} inputs of a core, {chip.name} has "
                f"{chip.inputs:,}"
            )
        return (
            f"{population.name}: synapses of one neuron take {_bits(population, least, chip):,} "
            f"bits, a core of {chip.name} has {chip.synapses.core_bits:,}"
        )
    return _placed(population, chip, *best, copies, bounds)


def _placed(
    population: Population,
    chip: Chip,
    cores: int,
    tile: tuple[int, ...],
    copies: int,
    bounds: dict[str, int],
) -> Placed:
    whole = population.shape
    if chip.inputs is not None:
        bounds["inputs"] = math.ceil(_inputs(population, whole, chip) / chip.inputs)
    if chip.synapses.core_bits is not None:
        bounds["memory"] = math.ceil(_bits(population, whole, chip) / chip.synapses.core_bits)
    inputs, bits = _inputs(population, tile, chip), _bits(population, tile, chip)
    return Placed(population, cores, tile, inputs, bits, copies, bounds)


def _tiles(population: Population, chip: Chip, room: int) -> Iterator[tuple[int, ...]]:
    """For each block of positions the most channels that a core takes of it."""
    channels = _parts(population.shape[0])
    for block in _blocks(population.shape[1:]):
        low, high = 0, len(channels)  # sizes below low fit, from high on do not
        while low < high:
            middle = (low + high) // 2
            if _fits(population, (channels[middle], *block), chip, room):
                low = middle + 1
            else:
                high = middle
        if low:
            yield (channels[low - 1], *block)


def _fits(population: Population, tile: tuple[int, ...], chip: Chip, room: int) -> bool:
    if math.prod(tile) > room:
        return False
    if chip.inputs is not None and _inputs(population, tile, chip) > chip.inputs:
        return False
    limit = chip.synapses.core_bits
    return limit is None or _bits(population, tile, chip) <= limit


def _inputs(population: Population, tile: tuple[int, ...], chip: Chip) -> int:
    return sum(axons(projection, tile, chip) for projection in population.inputs)


def _bits(population: Population, tile: tuple[int, ...], chip: Chip) -> int:
    links = (projection.connections for projection in population.inputs)
    return sum(tile_bits(one, tile, chip.synapses) for one in links)


def _blocks(positions: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if not positions:
        yield ()
        return
    for part in _parts(positions[0]):
        for rest in _blocks(positions[1:]):
            yield (part, *rest)


def _parts(size: int) -> list[int]:
    """The largest parts of equal cuts of an axis, each once, ascending."""
    return sorted({math.ceil(size / cuts) for cuts in range(1, size + 1)})


def _row(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """A block of about so many neurons, the last axes whole first."""
    tile = []
    for axis in reversed(shape):
        part = max(1, min(axis, size))
        tile.append(part)
        size //= part
    return tuple(reversed(tile))
