"""Lapicque's neuron, as snnTorch's is called in SSTFormer."""

import math

import pytest
import torch

import rheobase
from rheobase.neurons import Lapicque


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_its_numbers_are_those_of_its_input(dtype):
    spikes, membranes = Lapicque(0.5, v_threshold=0.2)(torch.rand(3, 4, dtype=dtype))
    assert spikes.dtype == membranes.dtype == dtype


@pytest.mark.parametrize("swapped", [False, True])
def test_step_by_step(swapped):
    torch.manual_seed(0)
    x, theta, rate = torch.rand(5, 30, dtype=torch.float64) * 2, 0.75, math.log(2.0)
    spikes, membranes = Lapicque(0.5, v_threshold=theta, swapped=swapped).double()(x)
    v = torch.zeros(30, dtype=torch.float64)
    for t in range(5):
        u = v + x[t]
        h = (1 - rate) * u + rate * x[t] - theta * (u > theta)
        torch.testing.assert_close(membranes[t], h, rtol=1e-6, atol=1e-6)
        assert torch.equal(spikes[t], (membranes[t] > theta).double())
        v = spikes[t] if swapped else membranes[t]
    assert 0 < spikes.mean() < 1


def test_streaming_and_refusal():
    x, neuron = torch.rand(4, 3), Lapicque(0.5, v_threshold=0.5)
    with rheobase.streaming(neuron):
        pieces = torch.cat([neuron(x[:1])[0], neuron(x[1:])[0]])
    assert torch.equal(pieces, neuron(x)[0])
    with pytest.raises(ValueError, match="beta"):
        Lapicque(1.5)
