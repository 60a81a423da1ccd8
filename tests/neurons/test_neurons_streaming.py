"""Every neuron: a causal one fed in pieces gives what one call gives, the others refuse to stream;
all export, and their spikes are counted."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rheobase
from rheobase import neurons
from rheobase.layers.sequential import TimeSequential
from rheobase.measure import count_operations
from rheobase.neurons import NEURONS, Neuron, SlidingPSN, StepNeuron, neuron_factory
from rheobase.neurons.biophysical import Biophysical

# Compiles many kernels.
pytestmark = pytest.mark.long

T = 12
# Those that no configuration names.
UNNAMED = {
    "pliaf": neurons.PLIAF,
    "detached_lif": neurons.DetachedLIF,
    "magnitude_reset_ternary_if": neurons.MagnitudeResetTernaryIF,
    "fed_back_burst_if": neurons.FedBackBurstIF,
    "rate_if": neurons.RateIF,
    "masked_rate_if": neurons.MaskedRateIF,
    "offset_rate_if": neurons.OffsetRateIF,
}
# Those with the option of a refractory period, which has a way of its own through time.
REFRACTORY = {f"{name}, refractory": NEURONS[name] for name in ("plif", "cuba_lif", "ternary_lif")}
ALL = NEURONS | UNNAMED | REFRACTORY
# What they are made with, where that is not nothing.
ARGUMENTS = {
    **{name: {"refractory": 2} for name in REFRACTORY},
    "rate_if": {"v_threshold": torch.tensor(1.0)},
    "psn": {"T": T},
    "masked_psn": {"T": T, "k": 3},
    "sliding_psn": {"k": 3},
    "glif": {"T": T, "channels": 3},
    "im_lif": {"T": T},
    "alif": {"beta": 0.5, "tau_adaptation": 5.0},
    "adaptive_qif": {"a": 0.3, "b": 0.4},
    "physical_lif": {"refractory": 0.3},
    "dsr_if": {"v_threshold": 1.0},
    "dsr_lif": {"v_threshold": 0.05},
}
# Millivolts and nanoamperes: what makes them fire within a few steps.
SCALE = {
    "physical_lif": 4e3, "physical_qif": 4e3, "physical_eif": 4e3, "izhikevich": 1e3,
    "adex": 30.0, "hodgkin_huxley": 1e4,
}  # fmt: skip


def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return neuron_factory(ALL[name], **ARGUMENTS.get(name, {}))()


CAUSAL = [name for name in ALL if _made(name).causal]
ACAUSAL = sorted(set(ALL) - set(CAUSAL))


def _input(name: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(T, 2, 3, 4, generator=generator) + 0.7
    return x * SCALE.get(name, 1.5)


def test_no_neuron_is_left_out() -> None:
    """Every public class of neurons but the bases."""
    public = (getattr(neurons, name) for name in neurons.__all__)
    classes = {c for c in public if isinstance(c, type) and issubclass(c, Neuron)}
    assert classes - {Neuron, StepNeuron, Biophysical} == set(ALL.values())


@pytest.mark.parametrize("name", CAUSAL)
@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, T - 1), min_size=1, max_size=4), seed=st.integers(0, 3))
def test_any_chunking_equals_one_call(name: str, cuts: list[int], seed: int) -> None:
    neuron, x = _made(name), _input(name, seed)
    edges = [0, *sorted(set(cuts)), T]
    with torch.no_grad():
        whole = neuron(x)
        with rheobase.streaming(neuron):
            parts = [neuron(x[a:b]) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("name", CAUSAL)
def test_settled_steps_equal_one_call(name: str) -> None:
    neuron, x = _made(name), _input(name, 0)
    with torch.no_grad():
        whole = neuron(x)
        neuron.settle()
        with rheobase.streaming(neuron):
            steps = [neuron(step) for step in x.split(1)]
    assert torch.equal(torch.cat(steps), whole)


@pytest.mark.parametrize("name", CAUSAL)
def test_these_inputs_make_it_fire(name: str) -> None:
    """Silence would pass the test above."""
    with torch.no_grad():
        spikes = _made(name)(_input(name, 0))
    assert 0.01 < (spikes != 0.0).double().mean() < 1.0


@pytest.mark.parametrize("name", ALL)
def test_it_exports(name: str) -> None:
    neuron, x = _made(name), _input(name, 0)
    exported = torch.export.export(neuron, (x,)).module()
    with torch.no_grad():
        assert torch.equal(exported(x), neuron(x))


@pytest.mark.parametrize("name", ALL)
def test_its_spikes_are_counted_at_the_next_layer(name: str) -> None:
    neuron, x = _made(name), _input(name, 0)
    net = TimeSequential(neuron, nn.Flatten(), nn.Linear(3 * 4, 2, bias=False))
    with torch.no_grad():
        spikes = neuron(x)
    counted = count_operations(net, x).layers[-1]
    assert (counted.kind, counted.macs, counted.steps) == ("linear", 3 * 4 * 2, T)
    assert counted.spiking.nonzero == int(spikes.count_nonzero())
    assert counted.sops == pytest.approx(int(spikes.count_nonzero()) * 2 / x.shape[1])
    if neuron.largest == 1:
        assert counted.spiking.values == "spikes"


def test_what_needs_the_whole_sequence_says_so() -> None:
    assert ACAUSAL == ["glif", "im_lif", "masked_psn", "offset_rate_if", "psn"]
    for name in ACAUSAL:
        with pytest.raises(ValueError, match="is not causal"):
            rheobase.streaming(_made(name)).__enter__()


@pytest.mark.parametrize("name", sorted(set(ACAUSAL) - {"offset_rate_if"}))
def test_another_number_of_steps_is_refused_with_both(name: str) -> None:
    with pytest.raises(ValueError, match=rf"made for T={T} and given T=5"):
        _made(name)(torch.rand(5, 2, 3, 4))


def test_a_step_of_psn_may_see_later_ones_and_sliding_may_not() -> None:
    x = torch.rand(T, 1, 8, dtype=torch.float64, requires_grad=True)
    for name, expected in (("psn", True), ("sliding_psn", False)):
        _, h = _made(name).double()(x, tap="h")
        (gradient,) = torch.autograd.grad(h[2].sum(), x)
        assert bool(gradient[3:].any()) is expected


def test_another_batch_in_the_stream_is_refused() -> None:
    for neuron in (_made("clif"), SlidingPSN(k=4)):
        with rheobase.streaming(neuron):
            neuron(torch.rand(2, 4, 3))
            with pytest.raises(ValueError, match=r"streams on inputs \[t, 4, 3\] but was given"):
                neuron(torch.rand(2, 5, 3))
