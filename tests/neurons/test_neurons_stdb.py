"""The neuron of hybrid training against its equations as the released code orders them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheobase.neurons import STDBIF


def fire_first(x: Tensor, theta: float, leak: float, alpha: float, beta: float) -> Tensor:
    """Fires by the membrane of the step before, then charges; keeps when it last fired."""
    membrane, last = torch.zeros_like(x[0]), torch.full_like(x[0], -1000.0)
    out = []
    for t in range(len(x) + 1):
        above = membrane / theta - 1.0
        fired = (above > 0.0).double()
        slope = alpha * torch.exp(-beta * (t - 1 - last)) * (last > -1000.0)
        out.append(fired + (above - above.detach()) * slope)
        last = torch.where(fired > 0.0, t - 1.0, last)
        if t < len(x):
            membrane = leak * membrane + x[t] - theta * fired
    return torch.stack(out[1:])


@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("beta", [0.01, 0.7])
def test_spikes_and_gradients_are_those_of_the_released_order(leak: float, beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(25, 3, 4, generator=generator, dtype=torch.float64) + 0.3
    weight = torch.randn(25, 3, 4, generator=generator, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes = STDBIF(1.3, leak=leak, alpha=0.3, beta=beta)(ours)
    expected = fire_first(theirs, 1.3, leak, 0.3, beta)
    assert torch.equal(spikes, expected) and 0.1 < spikes.mean() < 0.6
    (spikes * weight).sum().backward()
    (expected * weight).sum().backward()
    assert theirs.grad is not None and theirs.grad.abs().sum() > 1.0
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_without_fading_every_neuron_learns() -> None:
    x = torch.full((1, 1), 0.5, requires_grad=True)
    STDBIF(beta=0.0)(x).sum().backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(0.3)
    assert STDBIF(torch.tensor([1.0, 2.0]))(torch.full((1, 1, 2), 1.5)).tolist() == [[[1.0, 0.0]]]


def test_bad_arguments_are_refused() -> None:
    for bad in ({"leak": 0.0}, {"leak": 1.1}, {"beta": -1.0}):
        with pytest.raises(ValueError, match="STDB takes a leak above 0"):
            STDBIF(**bad)
    with pytest.raises(ValueError, match=r"number above 0 .* as v_threshold"):
        STDBIF(0.0)
