"""Converted networks made over for inference: spikes of size 1, then 8-bit weights and bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from rheobase.convert import RECIPES, ConvertedNetwork, Spiking, convert
from rheobase.layers import Int8Conv2d, Int8Linear
from rheobase.layers.int8 import spike_pool
from rheobase.layers.sized_spikes import AddSpikes, SizedSpikes
from rheobase.layers.spike_bytes import send_bytes
from rheobase.neurons import Neuron

T = 16


class Mixed(nn.Module):
    """Groups, a residual connection, pooling of both kinds, a padding, a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.twice = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 16, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(16 * 3 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, 8, 8]``."""
        x = F.relu(self.first(x))
        y = F.relu(self.grouped(x))
        y = F.relu(self.twice(y) + x)
        y = F.relu(self.twice(y))
        y = self.pool(y)
        y = F.relu(self.last(F.pad(y, (1, 1, 1, 1))))
        return self.head(F.max_pool2d(y, 2).flatten(1))


class Plain(nn.Module):
    """What is left of a network where all pooling is average and all padding of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.third = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16 * 4 * 4, 5)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, 8, 8]``."""
        x = self.relus[0](self.first(x))
        x = self.pool(self.relus[1](self.second(x) + x))
        x = self.relus[2](self.third(x))
        return self.head(x.flatten(1))


def _images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(4, 3, 8, 8, dtype=dtype, generator=torch.manual_seed(1))


def _made_over(snn: ConvertedNetwork) -> ConvertedNetwork:
    fast = copy.deepcopy(snn)
    fast.make_over()
    return fast


def _training_free() -> list[str]:
    return [name for name, recipe in RECIPES.items() if "relu" in recipe.source]


@pytest.mark.parametrize("recipe", _training_free())
def test_every_recipe_gives_the_same_output(recipe: str) -> None:
    torch.manual_seed(0)
    net, x = Mixed().double().eval(), _images()
    snn = convert(net, x, recipe=recipe, T=T, labels=torch.tensor([0, 1, 2, 3]))
    outputs = []
    for net in (snn, _made_over(snn), snn):  # the last is as it was
        torch.manual_seed(0)  # inputs may be drawn
        with torch.no_grad():
            outputs.append(net(x))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    assert torch.equal(outputs[2], outputs[0])


@pytest.mark.parametrize("recipe", ["ecmt", "sta", "spikezip_tf"])
def test_transformers_give_the_same_output(recipe: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    net = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3)).double().eval()
    x = torch.randn(4, 5, 8).double()
    snn = convert(net, x, recipe=recipe, T=6)
    with torch.no_grad():
        torch.testing.assert_close(_made_over(snn)(x), snn(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_sizes_are_in_the_weights(granularity: str) -> None:
    torch.manual_seed(0)
    snn = convert(
        Plain().double().eval(), _images(), recipe="threshold_max", T=T, granularity=granularity
    )
    fast = _made_over(snn)
    spiking = [m for m in fast.modules() if isinstance(m, Spiking)]
    assert len(spiking) == 3 and not any(m.sized for m in spiking)
    # The residual connection, and the flattened channels in front of the last layer.
    given = [AddSpikes] if granularity == "layer" else [AddSpikes, SizedSpikes]
    assert [type(m) for m in fast.modules() if isinstance(m, AddSpikes | SizedSpikes)] == given


def test_a_layer_that_the_stem_shares_stays_as_it_is() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 3, 3, padding=1), _images()
    net = nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
    snn = convert(net.double().eval(), x, recipe="threshold_max", T=T)
    with torch.no_grad():
        torch.testing.assert_close(_made_over(snn)(x), snn(x), rtol=1e-9, atol=1e-9)


def test_bytes_give_what_rounded_weights_give() -> None:
    torch.manual_seed(0)
    x = _images(torch.float32)
    snn = convert(Plain().eval(), x, recipe="threshold_max", T=T)
    fast = _made_over(snn)
    bytewise = copy.deepcopy(fast)
    rounded = copy.deepcopy(fast).double()
    for name, layer in list(bytewise.body.named_modules()):
        if type(layer) in (nn.Conv2d, nn.Linear):
            made = (Int8Conv2d if isinstance(layer, nn.Conv2d) else Int8Linear)(layer)
            bytewise.body.set_submodule(name, made)
            same = rounded.body.get_submodule(name)
            unit = made.scale.double().view(-1, *[1] * (layer.weight.dim() - 1))
            same.weight.data = made.weight.double() * unit
    for module in bytewise.modules():
        module.__class__ = spike_pool(module) or type(module)
    with torch.no_grad():
        assert send_bytes(bytewise, x) == 3
        senders = [m for m in bytewise.modules() if isinstance(m, Neuron)]
        assert all(neuron.to_bytes for neuron in senders)
        torch.testing.assert_close(bytewise(x), rounded(x.double()).float(), rtol=1e-4, atol=1e-4)


def test_optimize_makes_it_over() -> None:
    x = _images(torch.float32)
    snn = convert(Plain().eval(), x, recipe="threshold_max", T=T)
    fast = rheobase.optimize(snn, x, dtypes=(torch.float32, torch.int8))
    assert "3 neuron layers send spikes of size 1" in fast.choices
    assert any(line.startswith("torch.int8: ") for line in fast.choices)
    assert fast(x).shape == snn(x).shape
