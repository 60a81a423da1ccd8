"""The metrics of S2, held to their equations on a network that reads digits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rheobase.data import MNISTSample
from rheobase.layers import over_time, repeat
from rheobase.measure import (
    Cost,
    connectivity_efficiency,
    cost,
    count_operations,
    energy_delay_product,
    energy_per_spike,
    latency_energy,
    power_per_inference,
    spiking_throughput,
    synaptic_memory,
)
from rheobase.measure.connections import Connections
from rheobase.neurons import CLIF, GLIF, LIF, PSN, TernaryIF

T, N = 6, 10


class Digits(nn.Module):
    """A convolution and a linear layer, both with neurons."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Linear(3 * 14 * 14, 10)
        self.first, self.second = LIF(), LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(over_time(self.spikes(x).flatten(2), self.out) * 3)

    def spikes(self, x: Tensor) -> Tensor:
        return self.first(over_time(repeat(6.0 * x, T), self.conv))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    data = MNISTSample(train=False)
    return torch.stack([data[i][0] for i in range(N)])


@pytest.fixture(scope="module")
def found(digits: Tensor) -> Cost:
    return cost(Digits(), digits)


def test_spikes_and_neurons_are_those_of_the_network(found: Cost, digits: Tensor) -> None:
    net = Digits().eval()
    spikes = net.spikes(digits).sum() + net(digits).sum()
    assert found.counts.spikes == pytest.approx(spikes.item() / N)
    assert found.counts.spikes > 50
    assert found.counts.neuron_count == 3 * 14 * 14 + 10


def test_throughput_energy_per_spike_and_power_agree(found: Cost) -> None:
    """P = E / D, T_s = N / D and E_s = P / T_s leave E_s = E / N, whatever the time."""
    energy, spikes = found.energies["paper"].pj * 1e-12, found.counts.spikes
    for seconds in (found.latency, 1e-3):
        throughput = spiking_throughput(spikes, seconds)
        inference = power_per_inference(energy, spikes, seconds)
        assert throughput * seconds == pytest.approx(spikes)
        assert inference.power * seconds == pytest.approx(energy)
        assert energy_per_spike(inference.power, throughput) == pytest.approx(energy / spikes)
        assert inference.energy_per_spike == pytest.approx(energy / spikes)


def test_delay_products_of_inference_and_spike_differ_by_the_square_of_spikes(found: Cost) -> None:
    energy, spikes = found.energies["paper"].pj * 1e-12, found.counts.spikes
    whole = energy_delay_product(energy, found.latency)
    trade = latency_energy(energy / spikes, spiking_throughput(spikes, found.latency))
    assert trade.power == pytest.approx(energy / found.latency)  # S2's E T_s, which is a power
    assert trade.product == pytest.approx(energy_delay_product(trade.energy, trade.latency))
    assert trade.product * spikes**2 == pytest.approx(whole)


def test_synapses_are_the_ones_that_each_input_reaches(found: Cost) -> None:
    """Counted by sending every input alone through layers whose weights are all one."""
    net = Digits()
    nn.init.ones_(net.conv.weight)
    nn.init.zeros_(net.conv.bias)
    with torch.no_grad():
        reached = net.conv(torch.eye(784).view(784, 1, 28, 28)).sum()
    synapses = int(reached) + 3 * 14 * 14 * 10
    assert found.counts.synapses == synapses
    pairs = 784 * 3 * 14 * 14 + 3 * 14 * 14 * 10
    assert found.density == pytest.approx(synapses / pairs)
    assert connectivity_efficiency(synapses, 598) == synapses / 598**2


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (5, 3), padding=(2, 0), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv1d(4, 5, 4, stride=3),
    ],
    ids=str,
)
def test_connections_of_any_convolution(conv: nn.Module) -> None:
    x = (torch.rand(7, 4, *(9,) * (conv.weight.dim() - 2)) < 0.3).float()
    (layer,) = cost(nn.Sequential(conv, nn.Flatten()), x).counts.layers
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        assert layer.events * 7 == pytest.approx(conv(x).sum().item())
        assert layer.connections.synapses == conv(torch.ones_like(x[:1])).sum().item()
        assert layer.connections.fan_in == conv.weight[0].numel()
    assert layer.connections.weights == conv.weight.numel()


def test_memory_is_synapses_times_bits(found: Cost) -> None:
    counts = found.counts
    assert counts.weights == sum(p.numel() for p in Digits().parameters() if p.dim() > 1)
    assert synaptic_memory(counts.synapses, 8) == 8 * counts.synapses
    sparse = synaptic_memory(counts.synapses, 8, index_bits=10, pointers=784 * 20)
    assert sparse == 18 * counts.synapses + 784 * 20


def test_an_ordinary_network_of_the_shape(found: Cost) -> None:
    macs = 27 * 14 * 14 + 588 * 10
    twin = found.twin
    assert twin["32-bit floating point"] == pytest.approx(4.6 * macs)
    assert twin["8-bit integers"] == pytest.approx(0.23 * macs)
    assert twin["8-bit weights, 3-bit activations"] == pytest.approx(0.105 * macs)  # 7 counts
    biases = 3 * 14 * 14 + 10
    with_memory = 4.6 * macs + 4 * 24.96 * (macs + biases)
    assert twin["32-bit floating point, memory included"] == pytest.approx(with_memory)


def test_a_linear_layer_of_tokens_has_synapses_at_each(digits: Tensor) -> None:
    counts = cost(nn.Sequential(nn.Linear(28, 5), nn.Flatten()), digits.squeeze(1)).counts
    one = counts.layers[0].connections
    assert (one.inputs, one.outputs) == ((28, 28), (5, 28))
    assert one.synapses == 28 * 28 * 5 and one.weights == 28 * 5
    assert counts.spikes == 0 and counts.neuron_count == 0


@pytest.mark.parametrize("neuron", [LIF(), GLIF(T), CLIF(), PSN(T), TernaryIF()], ids=repr)
def test_neurons_of_any_kind_are_counted(neuron: nn.Module) -> None:
    (counted,) = count_operations(nn.Sequential(neuron), torch.rand(T, 2, 3)).neurons
    assert counted.updates == 3 * T and counted.state >= 1


def test_what_has_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="seconds is above 0, got 0"):
        spiking_throughput(10, 0)
    with pytest.raises(ValueError, match="energy is at least 0, got -1"):
        energy_delay_product(-1, 2)
    assert power_per_inference(1.0, 0, 1.0).energy_per_spike == math.inf
    assert Connections((2, 3), (4, 3), (1,), (1,), (0,), (1,)).synapses == 24
