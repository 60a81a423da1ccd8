"""The refractory period, an option of neurons (against Brian2 in test_goldens_biophysical.py)."""

from collections.abc import Callable

import pytest
import torch

import rheobase
from rheobase.layers import BNTT, FusedNormNeuron, Recurrent
from rheobase.neurons import CLIF, GLIF, IF, ILIF, KLIF, LIF, PLIF, Neuron, RefractoryLIF, TernaryIF
from rheobase.ops.scan import use_backend

MAKERS: dict[str, Callable[[int], Neuron]] = {
    "if": lambda r: IF(refractory=r),
    "lif": lambda r: LIF(1.7, v_reset=-0.3, refractory=r),
    "lif soft": lambda r: LIF(decay_input=False, v_reset=None, detach_reset=True, refractory=r),
    "plif": lambda r: PLIF(channels=3, refractory=r),
    "klif": lambda r: KLIF(k=1.2, refractory=r),
    "ilif": lambda r: ILIF(refractory=r),
    "ternary": lambda r: TernaryIF(refractory=r),
    "refractory lif": lambda r: RefractoryLIF(refractory=r),
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_the_plain_neuron_but_for_steps_that_nothing_reaches(name: str) -> None:
    """Taking the steps of one column's refractory periods out leaves the plain neuron."""
    generator = torch.Generator().manual_seed(1)
    x = 2.0 * torch.randn(40, 1, 3, 1, generator=generator, dtype=torch.float64)
    plain, held = MAKERS[name](0).double(), MAKERS[name](2).double()
    with use_backend("reference"):
        spikes, v = held(x, tap="v")
        assert 0.1 < (spikes != 0.0).double().mean() < 0.34
        for channel in range(3):
            own = spikes[:, 0, channel, 0]
            fired = (own != 0.0).nonzero().flatten().tolist()
            waiting = {t + after for t in fired for after in (1, 2) if t + after < 40}
            kept = [t for t in range(40) if t not in waiting]
            expected, membranes = plain(x[kept], tap="v")
            assert torch.equal(expected[:, 0, channel, 0], own[kept])
            assert torch.equal(membranes[:, 0, channel, 0], v[kept, 0, channel, 0])
            assert not own[sorted(waiting)].any()


def test_no_gradient_passes_a_refractory_step() -> None:
    x = torch.full((5, 1), 3.0, requires_grad=True)
    spikes, v = LIF(refractory=3, v_reset=None)(x, tap="v")
    assert spikes.flatten().tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert v[:4].flatten().tolist() == [0.5] * 4
    (spikes.sum() + v[:4].sum()).backward()
    assert x.grad is not None
    assert (x.grad[1:4] == 0).all() and (x.grad[[0, 4]] != 0).all()


def test_a_learnt_rate_has_its_gradient() -> None:
    neuron, x = PLIF(refractory=1), 3.0 * torch.rand(6, 2, 4)
    neuron(x).sum().backward()
    assert neuron.w.grad is not None and neuron.w.grad != 0.0


def test_the_period_goes_on_in_the_next_piece() -> None:
    x = 3.0 * torch.rand(12, 2, 5)
    neuron = LIF(refractory=2)
    with rheobase.streaming(neuron):
        pieces = [neuron(x[a:b]) for a, b in ((0, 1), (1, 4), (4, 12))]
    assert torch.equal(torch.cat(pieces), neuron(x))
    assert neuron(x).sum() > 0


def test_what_is_no_scan_takes_none() -> None:
    with pytest.raises(ValueError, match="CLIF has a step of its own and takes no refractory=2"):
        CLIF(refractory=2)
    with pytest.raises(ValueError, match="0 or more; got -1"):
        LIF(refractory=-1)
    with pytest.raises(ValueError, match=r"takes a whole number as refractory, got 1\.5"):
        LIF(refractory=1.5)  # type: ignore[arg-type]


def test_what_runs_the_scan_itself_refuses_it() -> None:
    norm = BNTT(3, steps=4).eval()
    norm.fold()
    with pytest.raises(ValueError, match="computes more than a scan"):
        FusedNormNeuron(norm, LIF(refractory=1))
    with pytest.raises(TypeError, match="takes a neuron of the scan"):
        Recurrent(4, LIF(refractory=1))
    assert GLIF(T=4).is_plain_scan and not LIF(refractory=1).is_plain_scan
