"""Gradient approximation error against cases whose true gradient is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rheobase.measure import gradient_approximation_error
from rheobase.neurons import IF, LIF
from rheobase.surrogate import Gaussian, Surrogate

# Compiles many kernels.
pytestmark = pytest.mark.long

SIGMA = 0.4
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 1.5])


def loss(spikes: Tensor) -> Tensor:
    return (spikes * WEIGHTS.to(spikes)).sum()


def one_layer(surrogate: Surrogate, samples: int = 1000) -> object:
    x = torch.tensor([0.4, 0.9, 1.1, 1.8]).view(1, 1, 4)
    net = nn.Sequential(IF(surrogate=surrogate))
    return gradient_approximation_error(net, x, loss, sigma=SIGMA, samples=samples)["0"]


def test_one_step_smoothed_by_noise_has_the_gaussian_surrogate_as_its_gradient() -> None:
    found = one_layer(Gaussian(SIGMA))
    assert found.relative < 0.15
    assert found.cosine > 0.99


def test_a_surrogate_of_another_width_has_the_error_of_the_formula() -> None:
    z = torch.tensor([0.4, 0.9, 1.1, 1.8]) - 1.0
    true, wide = (
        WEIGHTS * torch.exp(-0.5 * (z / width) ** 2) / (width * math.sqrt(2 * math.pi))
        for width in (SIGMA, 2 * SIGMA)
    )
    found = one_layer(Gaussian(2 * SIGMA))
    assert found.error == pytest.approx(float((true - wide).norm()), rel=0.15)
    assert found.relative == pytest.approx(float((true - wide).norm() / true.norm()), rel=0.15)
    assert found.cosine == pytest.approx(float(true @ wide / true.norm() / wide.norm()), abs=0.02)


def test_every_neuron_of_a_network_is_reported_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), LIF(), nn.Linear(4, 4), LIF()).train()
    x = torch.rand(4, 2, 3)
    before = net(x)
    found = gradient_approximation_error(net, x, loss, samples=4)
    assert list(found) == ["1", "3"]
    assert all(math.isfinite(f.error) for f in found.values())
    again = gradient_approximation_error(net, x, loss, samples=4)
    assert found == again
    assert net.training
    assert torch.equal(net(x), before)
    assert all(p.grad is None for p in net.parameters())


def test_a_silent_neuron_far_below_threshold_has_no_true_gradient() -> None:
    net = nn.Sequential(IF(surrogate=Gaussian(SIGMA)))
    found = gradient_approximation_error(net, torch.full((1, 1, 4), -9.0), loss, samples=8)["0"]
    assert found.relative == math.inf
    assert found.error < 1e-6


def test_what_it_needs_is_named() -> None:
    net, x = nn.Sequential(IF()), torch.rand(2, 1, 4)
    with pytest.raises(ValueError, match="sigma=0"):
        gradient_approximation_error(net, x, loss, sigma=0)
    with pytest.raises(ValueError, match="samples=1"):
        gradient_approximation_error(net, x, loss, samples=1)
    with pytest.raises(ValueError, match="network with neurons"):
        gradient_approximation_error(nn.Linear(4, 4), x, loss)
