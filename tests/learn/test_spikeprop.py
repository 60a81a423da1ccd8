from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rheobase.learn import Lesson, SpikeProp
from rheobase.models.spike_prop_net import SpikePropConfig, SpikePropNet, SpikeTimes
from rheobase.train import cross_entropy_of_mean


def build() -> SpikePropNet:
    torch.manual_seed(0)
    return SpikePropNet(SpikePropConfig((4,), num_classes=2, inputs=3, delays=5)).double()


def test_times_are_those_of_a_fine_simulation() -> None:
    torch.manual_seed(1)
    layer = SpikeTimes(3, 2, delays=4, tau=5.0, horizon=25.0).double()
    with torch.no_grad():
        layer.weight.mul_(1.5)
    times = torch.tensor([[0.0, 2.5, math.inf], [4.0, 1.0, 3.0]]).double()
    ours = layer(times)
    grid = torch.arange(0.0, 25.0, 1e-3).double()
    for n in range(2):
        for o in range(2):
            u = torch.zeros_like(grid)
            for i in range(3):
                for k in range(4):
                    s = (grid - times[n, i] - (k + 1)).clamp_min(0.0) / 5.0
                    u += layer.weight[o, i, k].detach() * s * torch.exp(1.0 - s)
            first = grid[(u >= 1.0).nonzero()[0, 0]]
            assert ours[n, o].item() == pytest.approx(float(first), abs=2e-3)


def test_gradients_are_those_of_finite_differences() -> None:
    net = build()
    times = torch.tensor([[0.0, 3.0, 1.5], [2.0, 0.5, 4.0]]).double()
    target = torch.tensor([[10.0, 14.0], [13.0, 11.0]]).double()
    given = Lesson(net, times, target, cross_entropy_of_mean)
    SpikeProp()(given)

    def cost() -> float:
        with torch.no_grad():
            return float(SpikeProp()(given))

    for parameter in net.parameters():
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)  # type: ignore[union-attr]
        for i in range(flat.numel()):
            values = []
            for step in (1e-6, -1e-6):
                flat[i] += step
                values.append(cost())
                flat[i] -= step
            assert grad[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-5)


def test_xor_is_learnt_in_spike_times() -> None:
    """The task of the paper: 0 and 1 are spikes at 0 and 6, the answer one at 16 or 10."""
    torch.manual_seed(5)
    net = SpikePropNet(SpikePropConfig((5,), num_classes=1, inputs=3))
    with torch.no_grad():  # one inhibitory hidden neuron
        net.layers[1].weight[:, 4] *= -1.0
        net.layers[1].weight *= 1.6
    times = torch.tensor([[0.0, 0.0, 0.0], [0.0, 6.0, 0.0], [6.0, 0.0, 0.0], [6.0, 6.0, 0.0]])
    target = torch.tensor([[16.0], [10.0], [10.0], [16.0]])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(600):
        optimizer.zero_grad()
        loss = SpikeProp()(Lesson(net, times, target, cross_entropy_of_mean))
        optimizer.step()
    assert loss < 0.5
    assert (-net(times)[0] - target).abs().max() < 1.5


def test_silent_neurons_have_no_gradient() -> None:
    layer = SpikeTimes(2, 1, delays=2, horizon=20.0)
    with torch.no_grad():
        layer.weight.fill_(0.01)
    late: Tensor = layer(torch.zeros(1, 2))
    assert late.item() == 20.0
    late.sum().backward()
    assert not layer.weight.grad.any()  # type: ignore[union-attr]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="network of spike times, got Linear"):
        SpikeProp().check(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="not before"):
        SpikeProp(early=5.0, late=5.0)
    with pytest.raises(ValueError, match="takes 3 spike times"):
        build()(torch.rand(2, 4))
