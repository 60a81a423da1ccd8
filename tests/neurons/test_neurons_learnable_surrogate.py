from __future__ import annotations

import pytest
import torch

from rheobase.neurons import LIF, LSGLIF, TandemIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import Rectangular


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_width_of_the_surrogate_follows_the_decay(backend: str) -> None:
    x = torch.rand(6, 3, 4, dtype=torch.float64, requires_grad=True)
    ours = LSGLIF(0.75, width=0.8).double()
    # 0.8 * sqrt(1 + 0.5625) = 1
    same = LIF(4.0, decay_input=False, v_threshold=0.5, surrogate=Rectangular(1.0))
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
    for bad, name in (({"decay": 1.0}, "decay"), ({"width": 0.0}, "width")):
        with pytest.raises(ValueError, match=name):
            LSGLIF(**bad)


@pytest.mark.parametrize(("decay", "width"), [(0.2, 1.0198), (0.5, 1.1180), (0.8, 1.2806)])
def test_widths_at_the_papers_threshold(decay: float, width: float) -> None:
    assert LSGLIF(decay).width.item() == pytest.approx(width, abs=5e-5)


def test_membranes_spread_as_the_width_says() -> None:
    """After one step of memory their deviation is half the width, where nothing has fired."""
    torch.manual_seed(0)
    neuron = LSGLIF(0.8, v_threshold=0.5, v_reset=None)
    x = 0.5 * torch.randn(2, 1, 40_000)
    with use_backend("reference"), torch.no_grad():
        spikes, h = neuron(x, tap="h")
        assert spikes[0].any()
        h = h[1] + 0.8 * 0.5 * spikes[0]  # what the reset took
    assert 2.0 * h.std().item() == pytest.approx(neuron.width.item(), rel=0.02)


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
