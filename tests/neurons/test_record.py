"""Recording membranes changes nothing of what a network computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rheobase.layers import MPBN
from rheobase.neurons import IF, LIF, PLIF, PSN, MaskedPSN, SlidingPSN, record_membranes


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), LIF(), nn.Linear(8, 4), PLIF(v_threshold=0.7))


def test_membranes_are_those_of_the_tap_in_order() -> None:
    network, x = net(), torch.rand(4, 5, 3) * 4
    with record_membranes(network) as membranes:
        spikes = network(x)
    assert [(m.name, m.threshold) for m in membranes] == [("1", 1.0), ("3", 0.7)]
    first, h = network[1](network[0](x), tap="h")
    assert torch.equal(membranes[0].h, h)
    assert torch.equal(membranes[0].spikes, first)
    assert torch.equal(spikes, network(x))
    assert torch.equal(spikes, membranes[1].spikes)


def test_a_loss_on_them_has_the_gradient_of_the_tap() -> None:
    network, x = net(), torch.rand(4, 5, 3) * 4
    with record_membranes(network) as membranes:
        network(x)
    membranes[1].h.square().mean().backward()
    recorded = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    current = network[:3](x)
    network[3](current, tap="h")[1].square().mean().backward()
    for gradient, parameter in zip(recorded, network.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_a_neuron_called_twice_is_there_twice_and_none_is_left_behind() -> None:
    neuron = IF()
    network, x = nn.Sequential(neuron, neuron), torch.rand(3, 1, 2)
    with record_membranes(network) as membranes:
        network(x)
    assert [m.name for m in membranes] == ["0", "0"]
    network(x)
    assert len(membranes) == 2
    assert "forward" not in vars(neuron)
    with pytest.raises(RuntimeError), record_membranes(network):
        raise RuntimeError
    assert "forward" not in vars(neuron)


def test_a_normalised_membrane_is_recorded_as_it_is_compared() -> None:
    neuron = MPBN(3, learn_threshold=True)
    with record_membranes(neuron) as membranes:
        spikes = neuron(torch.randn(4, 8, 3))
    assert torch.equal(spikes, (membranes[0].h >= membranes[0].threshold).float())


@pytest.mark.parametrize(
    "neuron",
    [
        PSN(8),
        MaskedPSN(8, k=2),
        SlidingPSN(k=2),
        MPBN(4, v_threshold=0.4),
        MPBN(4, v_threshold=0.4, learn_threshold=True),
    ],
    ids=["PSN", "MaskedPSN", "SlidingPSN", "MPBN", "MPBN-learnt"],
)
def test_a_recorded_threshold_is_where_it_fires(neuron: nn.Module) -> None:
    torch.manual_seed(0)
    if isinstance(neuron, MPBN) and neuron.log_threshold is not None:
        neuron.log_threshold.data += torch.linspace(-0.5, 1.0, 4)
    with record_membranes(neuron) as membranes, torch.no_grad():
        spikes = neuron(2.0 * torch.randn(8, 50, 4) + 1.0)
    assert torch.equal(membranes[0].h >= membranes[0].threshold, spikes > 0)
    assert 0 < spikes.mean() < 1
