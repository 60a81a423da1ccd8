from __future__ import annotations

import pytest
import torch

from rheobase.neurons import LIF, LSGLIF, TandemIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import Rectangular


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_width_of_the_surrogate_follows_the_decay(backend: str) -> None:
    x = torch.rand(6, 3, 4, dtype=torch.float64, requires_grad=True)
    ours = LSGLIF(0.6, width=0.8).double()
    same = LIF(2.5, decay_input=False, surrogate=Rectangular(1.0))  # 0.8 / sqrt(1 - 0.36) = 1
    with use_backend(backend):
        gradients = [torch.autograd.grad(neuron(x).sum(), x)[0] for neuron in (ours, same)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    before = ours.width.item()
    with torch.no_grad():
        ours.w += 1.0
    assert ours.width.item() > before


def test_the_decay_is_learnt_for_each_channel() -> None:
    neuron = LSGLIF(0.5, channels=3)
    with use_backend("reference"):
        neuron(torch.rand(5, 2, 3, 4)).sum().backward()
    assert neuron.w.grad is not None and neuron.w.grad.shape == (3,) and neuron.w.grad.any()
    for bad in ({"decay": 1.0}, {"width": 0.0}):
        with pytest.raises(ValueError, match="decay in"):
            LSGLIF(**bad)


def test_membranes_spread_as_the_width_says() -> None:
    """Without spikes, the deviation of the membrane is width times that of the input."""
    torch.manual_seed(0)
    neuron = LSGLIF(0.8, width=1.0, v_threshold=1e9, v_reset=None)
    with use_backend("reference"), torch.no_grad():
        _, h = neuron(torch.randn(60, 1, 4000), tap="h")
    assert h[-1].std().item() == pytest.approx(neuron.width.item(), rel=0.05)


def test_tandem_counts_forward_and_rectified_backward() -> None:
    """Two layers as the paper pairs them: spike counts through the ANN's weights."""
    torch.manual_seed(1)
    x = torch.rand(8, 3, 5, dtype=torch.float64)
    first, second = (torch.randn(n, m, dtype=torch.float64) for n, m in ((6, 5), (4, 6)))
    weights = [first.requires_grad_(), second.requires_grad_()]
    with use_backend("reference"):
        hidden = TandemIF()(x @ first.T)
        out = TandemIF()(hidden @ second.T)
    vector = torch.randn(3, 4, dtype=torch.float64)
    ours = torch.autograd.grad((out.sum(0) * vector).sum(), weights)
    counts = x.sum(0)
    for w, spikes in ((first, hidden), (second, out)):
        ann = (counts @ w.T).relu()
        counts = spikes.sum(0).detach() + (ann - ann.detach())  # counts replace activations
    theirs = torch.autograd.grad((counts * vector).sum(), weights)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
