"""Spike firing approximation: integers, their gradient, and the spikes that they stand for."""

import pytest
import torch

from rheobase.neurons import SpikeFiringApproximation, spike_trains


def test_integers_round_half_to_even_and_pass_the_gradient_within_the_range():
    x = torch.tensor([-0.1, 0.0, 0.5, 1.5, 2.6, 4.0, 4.1], requires_grad=True)
    y = SpikeFiringApproximation(levels=4)(x)
    assert (y * 4).tolist() == [0, 0, 0, 2, 3, 4, 4]
    y.sum().backward()
    assert (x.grad * 4).tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_the_large_networks_round_up_and_cut_the_gradient_at_the_bounds():
    x = torch.tensor([-0.1, 0.0, 0.5, 1.5, 2.6, 4.0, 4.1], requires_grad=True)
    y = SpikeFiringApproximation(levels=4, halves="up")(x)
    assert (y * 4).tolist() == [0, 0, 1, 2, 3, 4, 4]
    y.sum().backward()
    assert (x.grad * 4).tolist() == [0, 0, 1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="halves must be"):
        SpikeFiringApproximation(halves="down")


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_an_integer_is_the_mean_of_its_spikes(levels):
    torch.manual_seed(0)
    y = SpikeFiringApproximation(levels)(torch.randn(5, 7) * levels)
    trains = spike_trains(y, levels)
    assert set(trains.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(trains.mean(0), y)


def test_what_is_no_spike_is_refused():
    with pytest.raises(ValueError, match="multiples of 1/4"):
        spike_trains(torch.tensor([0.3]), 4)
    with pytest.raises(ValueError, match="multiples of 1/4"):
        spike_trains(torch.tensor([1.25]), 4)
    with pytest.raises(ValueError, match="at least 1 as levels, got 0"):
        SpikeFiringApproximation(0)
