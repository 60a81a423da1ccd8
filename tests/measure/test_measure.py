"""Counting attention, integers and repeated images; rates, latency, conventions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.data import MNISTSample
from rheobase.layers import over_time, repeat
from rheobase.measure import (
    CONVENTIONS,
    break_even_rate,
    count_operations,
    energy,
    firing_rates,
    spiking_sparsity,
    wall_time_per_image,
)
from rheobase.neurons import IF, LIF, TernaryIF
from rheobase.stateful import streaming

T, N, TOKENS, DIM = 3, 2, 5, 4


class Attention(nn.Module):
    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.unbind(2)
        return ((q @ k.transpose(-2, -1)) @ v).mean(2)


def spikes(*shape: int, rate: float) -> Tensor:
    """Spikes with exactly the share ``rate`` of ones."""
    size = torch.Size(shape).numel()
    flat = torch.zeros(size)
    flat[torch.randperm(size, generator=torch.Generator().manual_seed(0))[: round(rate * size)]] = 1
    return flat.view(shape)


def test_attention_products() -> None:
    shape = (T, N, TOKENS, DIM)
    q, k, v = spikes(*shape, rate=0.5), spikes(*shape, rate=0.25), spikes(*shape, rate=0.2)
    qk, av = count_operations(Attention(), torch.stack([q, k, v], 2)).layers
    assert (qk.name, av.name, qk.kind) == ("Attention@1", "Attention@2", "product")
    assert qk.macs == av.macs == TOKENS * TOKENS * DIM
    assert [o.rate for o in qk.operands] == [0.5, 0.25]
    assert qk.sops == 0.25 * T * qk.macs
    assert av.operands[0].values == "integers"
    assert av.sops == pytest.approx(0.2 * T * av.macs)


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x).mean(-2)


def test_softmax_attention_is_two_dense_products() -> None:
    x = torch.randn(N, TOKENS, DIM)
    charged = energy(count_operations(Softmax(), x), "ann")
    assert charged.acs == 0
    assert charged.macs == 2 * TOKENS * TOKENS * DIM
    assert charged.pj == 4.6 * charged.macs


class Static(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif, self.fc = nn.Conv2d(1, 3, 3), LIF(), nn.Linear(3 * 16, 5)
        nn.init.constant_(self.conv.weight, 0.08)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        current = over_time(repeat(x, T), self.conv)
        s = self.lif(4.0 * current)
        return over_time((s + s).flatten(2), self.fc)


def test_repeated_image_is_computed_and_charged_once() -> None:
    net = Static()
    report = count_operations(net, torch.rand(N, 1, 6, 6) + 0.1)
    conv, fc = report.layers
    assert (conv.steps, fc.steps, report.steps, report.images) == (1, T, T, N)
    assert conv.macs == 9 * 3 * 16
    assert energy(report).layers[0].macs == conv.macs
    assert energy(report, "paper_every_step").layers[0].macs == T * conv.macs
    assert report.macs == conv.macs + fc.macs


def test_negative_spikes_are_spikes() -> None:
    x = torch.tensor([[[2.0, -2.0, 0.0, 0.0]]])
    net = nn.Sequential(TernaryIF())
    assert net(x).flatten().tolist() == [1.0, -1.0, 0.0, 0.0]
    assert firing_rates(net, x) == {"0": 0.5}


def test_integers_count_once_each_unless_the_convention_says_mac() -> None:
    net = Static()
    x = torch.rand(N, 1, 6, 6) + 0.1
    rate = firing_rates(net, x)["lif"]
    assert 0 < rate < 1
    report = count_operations(net, x)
    fc = report.layers[1]
    assert fc.spiking.values == "integers"
    assert fc.spiking.rate == pytest.approx(rate)
    assert energy(report).layers[1].pj == pytest.approx(0.9 * rate * T * fc.macs)
    assert energy(report, "integers_as_mac").layers[1].pj == pytest.approx(4.6 * T * fc.macs)


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fc(step) for step in x])


def test_a_loop_over_time_counts_as_all_steps_at_once() -> None:
    x = spikes(T, N, 4, rate=0.25)
    (looped,) = count_operations(Looping(), x).layers
    assert (looped.macs, looped.steps, looped.spiking.rate) == (8, T, 0.25)


def test_counting_leaves_the_network_as_it_was() -> None:
    net = Static().train()
    net.conv.eval()
    count_operations(net, torch.rand(N, 1, 6, 6))
    assert net.training and net.fc.training and not net.conv.training
    assert not net.conv._forward_hooks and not net.lif._forward_pre_hooks


def test_hidden_products_are_refused() -> None:
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nd,md->nm", x, x)

    with pytest.raises(NotImplementedError, match="einsum in 'Hidden'"):
        count_operations(Hidden(), torch.ones(2, 3))


def test_rates_count_every_call_and_ignore_taps() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = IF()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(x) + self.neuron(0 * x, tap="v")[0]

    assert firing_rates(Twice(), torch.ones(4, 1, 3)) == {"neuron": 0.5}


def test_wall_time_is_per_image() -> None:
    class Sleepy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            import time

            time.sleep(0.02)
            return x

    seconds = wall_time_per_image(Sleepy(), torch.ones(4, 1), repeats=3)
    assert 0.005 <= seconds < 0.015


def test_break_even_and_unknown_convention() -> None:
    assert break_even_rate(4) == pytest.approx(5.11 / 4, abs=1e-3)
    report = count_operations(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        energy(report, "papers")
    assert "45 nm" in CONVENTIONS["paper"].constants
    assert "4.6 pJ per MAC, 0.9 pJ per AC" in CONVENTIONS["paper"].constants


class Digits(nn.Module):
    """Two layers of neurons over repeated images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(784, 30), nn.Linear(30, 10)
        self.hidden, self.out = LIF(), TernaryIF()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.hidden(over_time(repeat(12.0 * x.flatten(1), 6), self.first))
        return self.out(over_time(6.0 * spikes, self.second))


def test_sparsity_is_the_share_of_neurons_that_never_fire() -> None:
    """On real digits, neuron by neuron, as S2 6.2 defines it."""
    digits = MNISTSample(train=False)
    images = torch.stack([digits[i][0] for i in range(20)])
    net = Digits().eval()
    silent = 0
    for image in images:
        hidden = net.hidden(over_time(repeat(12.0 * image.flatten().unsqueeze(0), 6), net.first))
        out = net(image.unsqueeze(0))
        silent += sum(not hidden[:, 0, i].any() for i in range(30))
        silent += sum(not out[:, 0, i].any() for i in range(10))  # negative spikes are spikes
    expected = silent / (20 * 40)
    assert 0.1 < expected < 0.9
    assert spiking_sparsity(net, images) == pytest.approx(expected)
    with pytest.raises(ValueError, match="with neurons"):
        spiking_sparsity(nn.Linear(2, 2), torch.ones(1, 2))


def test_sparsity_of_pieces_is_that_of_the_whole() -> None:
    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = IF()

        def forward(self, x: Tensor) -> Tensor:
            with streaming(self.neuron):
                return torch.cat([self.neuron(x[:1]), self.neuron(x[1:3]), self.neuron(x[3:])])

    x = torch.rand(6, 4, 50, generator=torch.Generator().manual_seed(0)) / 3
    whole = spiking_sparsity(nn.Sequential(IF()), x)
    assert 0.1 < whole < 0.9
    assert spiking_sparsity(Pieces(), x) == whole
