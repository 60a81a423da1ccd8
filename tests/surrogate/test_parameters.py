"""Parameters: constant, learnt, scheduled; out of range; in a neuron."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from rheobase.neurons import CLIF, LIF
from rheobase.surrogate import (
    ATan,
    Dspike,
    EvolvingTanh,
    PiecewiseLeakyReLU,
    QPseudoSpike,
    SquarewaveFourierSeries,
    StraightThrough,
    Surrogate,
    im_loss_schedule,
    set_progress,
    surrogate_class,
    surrogates,
)


@pytest.mark.parametrize("row", surrogates(), ids=lambda row: row.name)
def test_out_of_range_is_refused_by_name(row) -> None:
    for name in row.parameters:
        bound = row.cls.above.get(name, 0.0)
        for bad in (bound, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{row.name} takes .*{name}"):
                row.cls(**{name: bad})


def test_out_of_range_parameter_to_be_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match="ATan takes a number above 0 as alpha, got -2"):
        ATan(nn.Parameter(torch.tensor(-2.0)))


@pytest.mark.parametrize("neuron", [LIF, CLIF])
@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_a_learnt_parameter_is_looked_at_again_when_used(neuron, bad) -> None:
    net = neuron(surrogate=ATan(nn.Parameter(torch.tensor(2.0))))
    good = net.state_dict()
    net.load_state_dict({name: torch.full_like(value, bad) for name, value in good.items()})
    with pytest.raises(ValueError, match=r"above 0 as alpha, got .*; it is learnt"):
        net(torch.rand(2, 1, 3))


def test_bound_is_that_of_the_formula() -> None:
    with pytest.raises(ValueError, match="above 1"):
        QPseudoSpike(alpha=0.5)
    with pytest.raises(ValueError, match="whole number as n"):
        SquarewaveFourierSeries(n=2.5)  # type: ignore[arg-type]
    assert PiecewiseLeakyReLU(c=-0.1).c == -0.1


def test_unknown_keyword_and_unknown_class() -> None:
    with pytest.raises(TypeError, match="alhpa"):
        ATan(alhpa=2.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="did you mean 'Sigmoid'"):
        surrogate_class("Sigmoyd")


def test_a_number_of_any_kind_is_a_float() -> None:
    assert repr(ATan(3)) == "ATan(alpha=3.0)"


def test_table_lists_all_with_their_defaults() -> None:
    table = {row.name: row for row in surrogates()}
    assert len(table) >= 27
    assert table["Dspike"].cls is Dspike is surrogate_class("Dspike")
    assert table["Dspike"].parameters == {"b": 3.0}
    assert table["StraightThrough"].parameters == {}
    assert all(isinstance(row.cls(), Surrogate) for row in table.values())
    assert "not stated" not in {row.mass for row in table.values()}


@pytest.mark.parametrize("cls", [ATan, Dspike, QPseudoSpike])
def test_learnt_in_a_neuron(cls: type[Surrogate]) -> None:
    (name, default), *_ = cls.defaults.items()
    surrogate = cls(**{name: nn.Parameter(torch.tensor(default))})
    neuron = LIF(surrogate=surrogate)
    assert [n for n, _ in neuron.named_parameters()] == [f"surrogate.{name}"]
    x = 2.0 * torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    s = neuron(x)
    torch.testing.assert_close(s, LIF(surrogate=cls())(x))
    weight = torch.linspace(-1.0, 1.0, s.numel()).view_as(s)
    (s * weight).sum().backward()
    gradient = getattr(surrogate, name).grad
    assert bool(gradient.isfinite())
    assert float(gradient.abs()) > 1e-4
    learnt, x.grad = x.grad, None
    (LIF(surrogate=cls())(x) * weight).sum().backward()
    torch.testing.assert_close(learnt, x.grad)


def test_schedule_of_im_loss() -> None:
    schedule = im_loss_schedule(1.0, 10.0)
    assert schedule(0.0) == pytest.approx(1.0)
    assert schedule(1.0) == pytest.approx(10.0)
    assert schedule(0.5) == pytest.approx(((10**0.5 - 1) * 10 + 10 - 10**0.5) / 9)


def test_progress_reaches_every_surrogate_of_a_network() -> None:
    def grow(fraction: float) -> float:
        return 1.0 + fraction

    net = nn.Sequential(
        LIF(surrogate=EvolvingTanh(k=im_loss_schedule(1.0, 10.0))),
        LIF(surrogate=Dspike(b=grow)),
        LIF(surrogate=ATan(3.0)),
    )
    assert [net[0].surrogate.k, net[1].surrogate.b] == [pytest.approx(1.0), 1.0]
    set_progress(net, 1.0)
    assert [net[0].surrogate.k, net[1].surrogate.b] == [pytest.approx(10.0), 2.0]
    assert net[2].surrogate.alpha == 3.0


def test_progress_changes_the_gradient_of_a_neuron() -> None:
    neuron = LIF(surrogate=EvolvingTanh(k=im_loss_schedule(1.0, 10.0)))

    def gradient(like: LIF) -> torch.Tensor:
        x = torch.full((2, 1, 3), 0.7, requires_grad=True)
        like(x).sum().backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(gradient(neuron), gradient(LIF(surrogate=EvolvingTanh(1.0))))
    set_progress(neuron, 1.0)
    torch.testing.assert_close(gradient(neuron), gradient(LIF(surrogate=EvolvingTanh(10.0))))


def test_progress_does_not_compile_again() -> None:
    neuron = LIF(surrogate=EvolvingTanh(k=im_loss_schedule(1.0, 10.0)))
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(neuron, backend=counter, fullgraph=True)
    gradients = []
    for epoch in range(4):
        set_progress(neuron, epoch / 4)
        x = torch.full((2, 1, 3), 0.7, requires_grad=True)
        compiled(x).sum().backward()
        gradients.append(float(x.grad.sum()))
    assert counter.frame_count == 1
    assert len(set(gradients)) == 4


def test_progress_outside_training_is_refused() -> None:
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="0 to 1"):
            set_progress(ATan(), fraction)


def test_schedule_that_leaves_the_range_is_refused_and_keeps_the_last_value() -> None:
    surrogate = ATan(alpha=lambda fraction: 1.0 - 2.0 * fraction)
    with pytest.raises(ValueError, match="ATan takes a number above 0"):
        set_progress(surrogate, 1.0)
    assert surrogate.alpha == 1.0


def test_copies_and_pickles_keep_schedule_and_value() -> None:
    surrogate = EvolvingTanh(k=im_loss_schedule(1.0, 10.0))
    set_progress(surrogate, 0.5)
    for twin in (copy.deepcopy(surrogate), pickle.loads(pickle.dumps(surrogate))):
        assert twin.k == surrogate.k
        set_progress(twin, 1.0)
        assert twin.k == pytest.approx(10.0)


def test_constants_and_schedules_are_not_in_the_state_dict() -> None:
    assert not EvolvingTanh(k=im_loss_schedule(1.0, 10.0)).state_dict()
    assert not StraightThrough().state_dict()
