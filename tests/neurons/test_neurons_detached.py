"""DetachedLIF: a LIF whose gradient stays within each step."""

import pytest
import torch

import rheobase
from rheobase.neurons import LIF, DetachedLIF


@pytest.mark.parametrize("v_reset", [0.0, None])
def test_it_is_a_lif_fed_step_by_step(v_reset):
    """Streaming detaches the membrane between calls, which is what this neuron is."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    lif = LIF(v_reset=v_reset, detach_reset=True)
    with rheobase.streaming(lif):
        expected = torch.cat([lif(step.unsqueeze(0)) for step in x.unbind(0)])
    (by_step,) = torch.autograd.grad(expected.square().sum(), x)
    spikes = DetachedLIF(v_reset=v_reset)(x)
    (gradient,) = torch.autograd.grad(spikes.square().sum(), x)
    assert torch.equal(spikes, expected)
    assert expected.sum() > 0
    torch.testing.assert_close(gradient, by_step, rtol=1e-12, atol=1e-12)


def test_it_streams():
    x = torch.randn(6, 2, 4)
    neuron = DetachedLIF()
    with rheobase.streaming(neuron):
        pieces = torch.cat([neuron(x[:2]), neuron(x[2:])])
    assert torch.equal(pieces, neuron(x))


def test_it_has_no_membrane_to_give():
    with pytest.raises(ValueError, match="use LIF"):
        DetachedLIF()(torch.zeros(2, 1), tap="v")
