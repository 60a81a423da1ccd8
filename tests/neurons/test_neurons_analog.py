"""The neuron that puts out its membrane."""

import pytest
import torch

import rheobase
from rheobase.neurons import PLIAF, PLIF


@pytest.mark.parametrize("v_reset", [0.0, None])
def test_it_is_plif_with_another_output(v_reset):
    torch.manual_seed(0)
    x = torch.randn(5, 30, dtype=torch.float64) + 1.0
    neuron, twin = PLIAF(tau=3.0, v_reset=v_reset).double(), PLIF(tau=3.0, v_reset=v_reset).double()
    _, h = twin(x, tap="h")
    _, v = twin(x, tap="v")
    assert torch.equal(neuron(x), h.relu())
    assert torch.equal(neuron(x, tap="h")[1], h)
    torch.testing.assert_close(neuron(x, tap="v")[1], v)


def test_gradients_and_streaming():
    x = torch.rand(6, 4) * 2
    neuron = PLIAF(detach_reset=True)
    neuron(x).sum().backward()
    assert neuron.w.grad != 0
    with torch.no_grad(), rheobase.streaming(neuron):
        pieces = torch.cat([neuron(x[:4]), neuron(x[4:])])
    assert torch.equal(pieces, neuron(x).detach())
    assert neuron(x.bfloat16()).dtype == torch.bfloat16
