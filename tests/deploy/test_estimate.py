"""Energy, latency and traffic on chips, by hand and by known answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rheobase.deploy import (
    CHIPS,
    Chip,
    Circuit,
    Figure,
    Mapping,
    Placed,
    Population,
    Projection,
    estimate,
    map_circuit,
    traffic,
)
from rheobase.measure import Connections

ONE = (1,)


def population(
    name: str, neurons: int, spikes: float, source: str, inputs: int, events: float = 0.0
) -> Population:
    links = Connections((inputs, 1), (neurons, 1), ONE, ONE, (0,), ONE)
    projection = Projection(source, (name,), links, events)
    return Population(name, "neurons", "integrator", (neurons, 1), spikes, (projection,))


def on_cores(chip: Chip, circuit: Circuit, **cores: int) -> Mapping:
    """With so many cores for each population, as if there were no other choice."""
    placed = tuple(
        Placed(one, cores[one.name], (-(-one.neurons // cores[one.name]), 1), 0, 0, 0, {"n": 1})
        for one in circuit.populations
    )
    return Mapping(chip, circuit, placed, ())


def test_spikes_within_one_core_cross_nothing() -> None:
    first = population("a", 50, 200.0, "a", 50)
    found = traffic(on_cores(CHIPS["loihi"], Circuit((first,), 4, 0.0, ()), a=1))
    assert (found.packets, found.crossing, found.across, found.along) == (200.0, 0.0, 0.0, 0.0)


def test_two_cores_send_each_other_every_spike_once() -> None:
    """N neurons at rate f for T steps to N others: N f T packets, whatever their fan-out."""
    neurons, rate, steps = 60, 0.25, 8
    first = population("a", neurons, neurons * rate * steps, "input", 10)
    second = population("b", neurons, 0.0, "a", neurons)
    chip = replace(CHIPS["loihi"], mesh=(8, 4, 1))
    found = traffic(on_cores(chip, Circuit((first, second), steps, 0.0, ()), a=1, b=1))
    assert found.packets == found.crossing == neurons * rate * steps
    assert (found.across, found.along) == (found.packets, 0.0)
    # Four cores of a tile are no hop apart.
    found = traffic(on_cores(CHIPS["loihi"], Circuit((first, second), steps, 0.0, ()), a=1, b=1))
    assert (found.crossing, found.across) == (found.packets, 0.0)


@pytest.mark.parametrize("side", [3, 8])
def test_mean_distance_on_a_mesh(side: int) -> None:
    """2 (n^2 - 1) / (3 n) between two tiles drawn at random."""
    whole = population("a", side * side, 1.0, "a", side * side)
    chip = replace(CHIPS["loihi"], mesh=(side, side, 1))
    mapping = on_cores(chip, Circuit((whole,), 1, 0.0, ()), a=side * side)
    found = traffic(mapping)
    mean = (found.across + found.along) / found.packets
    assert mean == pytest.approx(2 * (side**2 - 1) / (3 * side))
    assert found.across == pytest.approx(found.along)
    assert found.crossing / found.packets == pytest.approx(1 - 1 / side**2)


def test_a_second_chip_stands_east_of_the_first() -> None:
    first, second = population("a", 2, 1.0, "input", 1), population("b", 1, 0.0, "a", 2)
    chip = replace(CHIPS["loihi"], mesh=(1, 2, 1))
    found = traffic(on_cores(chip, Circuit((first, second), 1, 0.0, ()), a=2, b=1))
    assert (found.across, found.along) == (1.0, 0.5)


def test_energy_and_time_on_loihi_by_hand() -> None:
    """Davies et al. 2018, table 2."""
    first = population("a", 100, 300.0, "input", 20, events=5_000.0)
    second = population("b", 10, 7.0, "a", 100, events=3_000.0)
    mapping = map_circuit(Circuit((first, second), 6, 250.0, ()), CHIPS["loihi"])
    found = estimate(mapping)
    assert [one.cores for one in mapping.placed] == [1, 1]
    picojoules = 8_000 * 23.6 + 110 * 6 * 81.0 + (250 + 300 + 7) * 1.7
    assert found.energy == pytest.approx(1e-12 * picojoules)  # one tile: no hops
    assert found.synaptic_events == 8_000 and found.spikes == 557
    step = 5_000 / 6 * 3.5e-9 + 100 * 8.4e-9 + 465e-9
    assert found.step == pytest.approx(step)
    assert found.steps == 6 + 1  # the second population hears the last step one later
    assert found.latency == pytest.approx(7 * step)
    assert found.energy_delay == pytest.approx(found.energy * found.latency)
    assert found.power == pytest.approx(found.energy / found.latency)
    assert found.energy_per_spike == pytest.approx(found.energy / 557)
    assert found.missing == ("power at rest",)


def test_truenorths_power_at_its_operating_point() -> None:
    """A million neurons at 20 Hz with 128 synapses each take 72 mW (Merolla et al. 2014)."""
    neurons = 4096 * 256
    spikes = neurons * 20.0 * 1e-3  # of one step, a millisecond
    whole = population("a", neurons, spikes, "a", neurons, events=128 * spikes)
    mapping = on_cores(CHIPS["truenorth"], Circuit((whole,), 1, 0.0, ()), a=4096)
    found = estimate(mapping)
    assert found.latency == 1e-3
    assert found.power == pytest.approx(0.072, rel=0.05)
    assert [one.events for one in found.charges] == ["synaptic events"] and not found.missing


@pytest.mark.parametrize(
    ("name", "energy", "latency"),
    [
        ("truenorth", 26e-12 * 1000, 5e-3),
        ("spinnaker", 0.6e-6 * 1000, 5e-3),
        ("brainscales", 600 * 5e-7, 5e-7),
        ("tianjic", 1.54e-12 * 1000, 5 * 5050 / 300e6),
        ("darwin3", 5.47e-12 * 1000, None),
    ],
)
def test_published_figures_are_charged(name: str, energy: float, latency: float | None) -> None:
    one = population("a", 20, 40.0, "input", 30, events=1000.0)
    found = estimate(map_circuit(Circuit((one,), 5, 10.0, ()), CHIPS[name]))
    assert found.energy == pytest.approx(energy)
    assert found.latency == (None if latency is None else pytest.approx(latency))
    if latency is None:
        assert found.power is found.energy_delay is found.energy_per_spike is None


def test_every_figure_has_its_source() -> None:
    for chip in CHIPS.values():
        assert chip.paper and chip.sources
        for figure in vars(chip.prices).values():
            if isinstance(figure, Figure):
                assert figure.value > 0 and any(year in figure.source for year in ("20", "open-"))
