"""Circuits on chips: every core within its limits, known answers, published sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from rheobase.deploy import (
    CHIPS,
    Chip,
    Circuit,
    Mapping,
    Placed,
    Population,
    Projection,
    circuit_of,
    find_chip,
    map_circuit,
)
from rheobase.deploy.memory import axon_bits, inputs_of_tile
from rheobase.layers import over_time, repeat
from rheobase.measure import Connections
from rheobase.neurons import IF


def dense(inputs: int, outputs: int) -> Projection:
    one = (1,)
    links = Connections((inputs, 1), (outputs, 1), one, one, (0,), one)
    return Projection("input", ("fc",), links, 0.0)


def conv(links: Connections, source: str = "input") -> Projection:
    return Projection(source, ("conv",), links, 0.0)


def alone(*inputs: Projection, dynamics: str = "integrator") -> Circuit:
    """One population with these synapses."""
    shape = inputs[0].connections.outputs
    population = Population("n", "neurons", dynamics, shape, 0.0, inputs)  # type: ignore[arg-type]
    return Circuit((population,), 4, 0.0, ())


def placed(circuit: Circuit, chip: Chip) -> Placed:
    mapping = map_circuit(circuit, chip)
    assert mapping.obstacles == ()
    return mapping.placed[-1]


WINDOWS = [
    Connections((8, 14, 14), (12, 14, 14), (3, 3), (1, 1), (1, 1), (1, 1)),
    Connections((6, 16, 16), (8, 8, 8), (5, 3), (2, 2), (2, 1), (1, 1)),
    Connections((8, 12, 12), (8, 6, 6), (2, 2), (2, 2), (0, 0), (1, 1), 8),
    Connections((8, 10, 10), (12, 10, 10), (3, 3), (1, 1), (1, 1), (1, 1), 4),
]


@pytest.mark.parametrize("links", WINDOWS, ids=str)
@pytest.mark.parametrize("name", ["truenorth", "loihi", "tianjic"])
def test_every_core_is_within_its_limits(links: Connections, name: str) -> None:
    """Counted neuron by neuron, on every core."""
    chip = CHIPS[name]
    found = placed(alone(conv(links)), chip)
    seen: set[tuple[int, ...]] = set()
    cuts = [range(0, size, part) for size, part in zip(links.outputs, found.tile, strict=True)]
    corners = list(product(*cuts))
    assert len(corners) == found.cores
    for corner in corners:
        axes = zip(corner, found.tile, links.outputs, strict=True)
        neurons = list(product(*(range(c, min(c + t, size)) for c, t, size in axes)))
        assert len(neurons) <= chip.neurons
        seen.update(neurons)
        inputs: dict[tuple[int, ...], int] = {}
        for neuron in neurons:
            for one in inputs_of(neuron, links):
                inputs[one] = inputs.get(one, 0) + 1
        assert len(inputs) * chip.axons_per_input <= found.inputs <= chip.inputs
        if name == "loihi":
            bits = sum(axon_bits(n, 8, 0 if n == len(neurons) else 10) for n in inputs.values())
            assert bits <= chip.synapses.core_bits
    assert len(seen) == math.prod(links.outputs)


def inputs_of(neuron: tuple[int, ...], links: Connections) -> list[tuple[int, ...]]:
    per_group = links.inputs[0] // links.groups
    group = neuron[0] // (links.outputs[0] // links.groups)
    channels = range(group * per_group, (group + 1) * per_group)
    axes = [
        [o * s - p + k for k in range(kernel) if 0 <= o * s - p + k < size]
        for o, s, p, kernel, size in zip(
            neuron[1:], links.stride, links.padding, links.kernel, links.inputs[1:], strict=True
        )
    ]
    return list(product(channels, *axes))


def test_synapses_of_a_dense_layer_on_loihi() -> None:
    """1024 to 1024 at 8 bits: 9216 bits an input, of which a core holds 113 (nengo-loihi)."""
    loihi = CHIPS["loihi"]
    assert axon_bits(1024, 8) == 9216
    assert loihi.synapses.core_bits // axon_bits(1024, 8) == 113
    found = placed(alone(dense(1024, 1024)), loihi)
    assert found.limit == "memory" and found.bounds["neurons"] == 1
    # A core has all 1024 inputs of its neurons: 1024 bits for each, which 118 neurons take.
    assert axon_bits(118, 8) <= 1024 < axon_bits(119, 8)
    assert found.cores == math.ceil(1024 / 118) == found.bounds["memory"] == 9


def test_slices_of_a_population_on_spinnaker() -> None:
    """PACMAN: slices of as many neurons as allowed; 1000 at 255 are four."""
    chip = replace(CHIPS["spinnaker"], neurons=255)
    assert placed(alone(dense(10, 1000)), chip).cores == 4
    mapping = map_circuit(alone(dense(1000, 1000)), CHIPS["spinnaker"])
    assert mapping.bits >= 32 * 1000 * 1000
    few = replace(chip, synapses=replace(chip.synapses, chip_bits=32 * 250_000))
    assert map_circuit(alone(dense(1000, 1000)), few).chips >= 4


def test_circuits_are_joined_for_more_inputs_on_brainscales() -> None:
    """224 rows of synapses each, of which an input with both signs takes two; up to 64 circuits."""
    chip = CHIPS["brainscales"]
    assert placed(alone(dense(112, 512)), chip).cores == 1
    assert placed(alone(dense(113, 512)), chip).cores == 2
    assert placed(alone(dense(7168, 8)), chip).cores == 1
    (obstacle,) = map_circuit(alone(dense(7169, 8)), chip).obstacles
    assert obstacle == "n: a neuron takes 14,338 inputs, BrainScaleS-1, one wafer has 14,336"


def test_both_signs_take_two_inputs_on_truenorth() -> None:
    chip = CHIPS["truenorth"]
    assert placed(alone(dense(128, 256)), chip).inputs == 256
    (obstacle,) = map_circuit(alone(dense(129, 10)), chip).obstacles
    assert obstacle == "n: a neuron takes 258 inputs of a core, IBM TrueNorth has 256"
    (leak,) = map_circuit(alone(dense(9, 9), dynamics="leaky"), chip).obstacles
    assert "lose a share of their membrane" in leak
    assert map_circuit(alone(dense(9, 9), dynamics="leaky"), CHIPS["loihi"]).fits


def test_a_neuron_of_truenorth_needs_a_copy_for_each_input_it_drives() -> None:
    """100 neurons that 600 others hear, on three cores, twice each for both signs."""
    first = Population("a", "neurons", "integrator", (100, 1), 0.0, (dense(64, 100),))
    heard = replace(dense(100, 600), source="a")
    second = Population("b", "neurons", "integrator", (600, 1), 0.0, (heard,))
    mapping = map_circuit(Circuit((first, second), 4, 0.0, ()), CHIPS["truenorth"])
    assert [one.copies for one in mapping.placed] == [3 * 2 * 100, 0]
    assert mapping.cores == 1 + 3 + math.ceil(600 / 256)
    assert mapping.depth == 3  # the copies send a step later


def test_outputs_of_a_core_of_loihi_are_limited() -> None:
    """1024 neurons that go to ten cores each are 10 240 pairs: three cores' worth."""
    first = Population("a", "neurons", "leaky", (1024, 1), 0.0, (dense(8, 1024),))
    heard = replace(dense(1024, 1180), source="a")
    second = Population("b", "neurons", "leaky", (1180, 1), 0.0, (heard,))
    mapping = map_circuit(Circuit((first, second), 4, 0.0, ()), CHIPS["loihi"])
    a, b = mapping.placed
    assert b.cores == 10
    assert a.bounds["outputs"] == 3 and a.cores >= 3
    assert max(a.tile) * b.cores <= 4096


def test_weights_that_synapses_share_are_kept_once_on_darwin3() -> None:
    links = WINDOWS[0]
    shared = placed(alone(conv(links)), CHIPS["darwin3"])
    assert shared.cores == 1 and shared.bits == 8 * links.weights
    unshared = placed(alone(conv(links)), CHIPS["loihi"])
    assert unshared.bits * unshared.cores > 8 * links.synapses


def test_a_core_holds_the_synapses_of_all_that_its_neurons_hear() -> None:
    one, two = dense(100, 200), dense(60, 200)
    both = placed(alone(one, two), CHIPS["loihi"])
    assert both.inputs == 160
    assert (
        both.bits
        == placed(alone(one), CHIPS["loihi"]).bits + placed(alone(two), CHIPS["loihi"]).bits
    )


@pytest.mark.parametrize(
    ("name", "neurons", "synapses"),
    [
        ("truenorth", 1_048_576, 268_435_456),
        ("loihi", 131_072, None),
        ("brainscales", 196_608, 44_040_192),
        ("tianjic", 39_936, 10_223_616),
        ("darwin3", 2_355_200, None),
    ],
)
def test_sizes_are_the_published_ones(name: str, neurons: int, synapses: int | None) -> None:
    """A million, 128 k (S2 table 3: 10^5), 196 608, 40 000 and 2.35 million neurons."""
    chip = find_chip(name)
    assert chip.cores * chip.neurons == neurons
    if synapses is not None:
        each = chip.inputs or chip.circuit_inputs
        assert chip.cores * chip.neurons * each == synapses


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'loihi'"):
        find_chip("loihi3")


class Digits(nn.Module):
    """Small and without leaks, so that each of the chips can take it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Conv2d(1, 4, 5, stride=4)
        self.conv, self.fc, self.head = nn.Conv2d(4, 8, 3), nn.Linear(128, 40), nn.Linear(40, 10)
        self.n1, self.n2, self.n3 = IF(), IF(), IF()

    def forward(self, x: Tensor) -> Tensor:
        x = self.n1(over_time(repeat(3.0 * x, 5), self.encode))
        x = self.n2(3.0 * over_time(x, self.conv))
        return over_time(self.n3(3.0 * over_time(x.flatten(2), self.fc)), self.head)


@pytest.mark.parametrize("name", list(CHIPS))
def test_a_small_network_fits_every_chip(name: str) -> None:
    mapping = map_circuit(circuit_of(Digits(), torch.rand(2, 1, 28, 28)), CHIPS[name])
    assert mapping.fits and mapping.chips == 1
    names = [one.population.name for one in mapping.placed]
    assert names == ["n2", "n3", "readout"]  # n1 makes spikes of values, beside the chip
    assert mapping.synapses == sum(int(p.population.synapses) for p in mapping.placed)
    check_inputs(mapping)


def check_inputs(mapping: Mapping) -> None:
    for one in mapping.placed:
        links = [p.connections for p in one.population.inputs]
        assert one.inputs >= sum(inputs_of_tile(link, one.tile) for link in links)
