"""Integrate-and-fire with spikes of both signs."""

import pytest
import torch

import rheobase
from rheobase.neurons import MagnitudeResetTernaryIF
from rheobase.surrogate import Sigmoid


def by_hand(x, upper, lower, detach_reset):
    """The equations with autograd, the spike's gradient put in as a straight line."""
    g = Sigmoid(4.0)
    u, out = torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        h = u + x_t
        up, down = h - upper, -h - lower
        s = (up >= 0).double() - (down >= 0).double()
        slope = (g(up) + g(down)).detach()
        s = s.detach() + (h - h.detach()) * slope
        u = h * (1 - (s.detach() if detach_reset else s).abs())
        out.append(s)
    return torch.stack(out)


@pytest.mark.parametrize("detach_reset", [False, True])
def test_spikes_and_gradients(detach_reset):
    torch.manual_seed(0)
    x = torch.randn(5, 40, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 40, dtype=torch.float64)
    neuron = MagnitudeResetTernaryIF(
        v_threshold=0.8, v_negative=0.5, detach_reset=detach_reset, surrogate=Sigmoid(4.0)
    )
    ours, theirs = neuron(x), by_hand(x, 0.8, 0.5, detach_reset)
    assert set(ours.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(ours, theirs)
    mine = torch.autograd.grad((ours * weight).sum(), x)
    expected = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_taps_streaming_and_half_precision():
    torch.manual_seed(0)
    x, neuron = torch.randn(6, 9), MagnitudeResetTernaryIF()
    spikes, charged = neuron(x, tap="h")
    after = neuron(x, tap="v")[1]
    assert torch.equal(after, charged * (1 - spikes.abs()))
    with rheobase.streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:])]), spikes)
    assert neuron(x.bfloat16()).dtype == torch.bfloat16


def test_refusals():
    with pytest.raises(ValueError, match="v_negative"):
        MagnitudeResetTernaryIF(v_negative=-0.5)
    with pytest.raises(TypeError, match="float"):
        MagnitudeResetTernaryIF()(torch.zeros(2, 3, dtype=torch.long))
