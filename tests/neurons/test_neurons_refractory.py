"""LIF with a refractory period (against Brian2 in test_goldens_biophysical.py)."""

from typing import Any

import pytest
import torch

import rheobase
from rheobase.neurons import LIF, RefractoryLIF
from rheobase.ops.scan import use_backend


@pytest.mark.parametrize("v_reset", [0.0, -0.3, None])
@pytest.mark.parametrize("decay_input", [True, False])
def test_without_a_period_it_is_a_lif(v_reset: float | None, decay_input: bool) -> None:
    options: dict[str, Any] = {"v_reset": v_reset, "decay_input": decay_input}
    x = (2.0 * torch.randn(9, 4, dtype=torch.float64)).requires_grad_()
    found = []
    for neuron in (RefractoryLIF(2.0, refractory=0, **options), LIF(2.0, **options)):
        with use_backend("reference"):
            spikes, v = neuron(x, tap="v")
        found.append((spikes, v, *torch.autograd.grad((spikes + v.sin()).sum(), x)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert found[0][0].sum() > 0


def test_nothing_reaches_it_after_a_spike() -> None:
    x = torch.full((5, 1), 3.0, requires_grad=True)
    spikes, v = RefractoryLIF(refractory=3, v_reset=None)(x, tap="v")
    assert spikes.flatten().tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert v[:4].flatten().tolist() == [0.5] * 4
    (spikes.sum() + v[:4].sum()).backward()
    assert x.grad is not None
    assert (x.grad[1:4] == 0).all() and (x.grad[[0, 4]] != 0).all()


def test_the_period_goes_on_in_the_next_piece() -> None:
    x = 3.0 * torch.rand(12, 2, 5)
    neuron = RefractoryLIF(refractory=2)
    with rheobase.streaming(neuron):
        pieces = [neuron(x[a:b]) for a, b in ((0, 1), (1, 4), (4, 12))]
    assert torch.equal(torch.cat(pieces), neuron(x))
    assert neuron(x).sum() > 0
