from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rheobase.learn import Lesson
from rheobase.learn.dspike import choose_temperature, finite_difference_cosine
from rheobase.neurons import IF, LIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import ATan, Dspike, Rectangular
from rheobase.train import cross_entropy_of_mean


def lesson(b: float, surrogate: object = None) -> Lesson:
    torch.manual_seed(0)
    make = lambda: LIF(decay_input=False, surrogate=surrogate or Dspike(b))  # noqa: E731
    net = nn.Sequential(nn.Linear(6, 16), make(), nn.Linear(16, 16), make(), nn.Linear(16, 3))
    with torch.no_grad():
        net[0].weight.mul_(3.0)
        net[2].weight.mul_(3.0)
    x = torch.rand(5, 64, 6)
    return Lesson(net, x, torch.randint(3, (64,)), cross_entropy_of_mean)


def test_the_temperature_walks_to_where_gradients_are_right() -> None:
    with use_backend("reference"):
        given = lesson(9.0)
        before = [p.detach().clone() for p in given.net.parameters()]
        first = choose_temperature(given, step=1.0, epsilon=0.3)
        assert set(first.cosines) == {8.0, 9.0, 10.0}
        assert first.b == max(first.cosines, key=first.cosines.__getitem__)
        found = [first]
        for _ in range(7):
            found.append(choose_temperature(given, step=1.0, epsilon=0.3))
    best = [max(choice.cosines.values()) for choice in found]
    assert best == sorted(best) and best[-1] > first.cosines[9.0]
    assert {float(m.b) for m in given.net.modules() if isinstance(m, Dspike)} == {found[-1].b}
    after = given.net.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in given.net.parameters())


@pytest.mark.parametrize(("alpha", "cosine"), [(0.5, 2**-0.5), (2.0, 1.0)])
def test_the_cosine_of_a_network_as_it_is(alpha: float, cosine: float) -> None:
    """Of two weights, 0.95 and 0.5, a difference of 0.1 moves the first alone across the threshold.

    A surrogate of width 2 has the same gradient for both, one of width 0.5 for the first alone.
    """
    net = nn.Sequential(nn.Linear(1, 2, bias=False), IF(surrogate=Rectangular(alpha)))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.95], [0.5]]))
    given = Lesson(net, torch.ones(1, 1, 1), torch.zeros(1), lambda y, _: y.sum())
    with use_backend("reference"):
        assert finite_difference_cosine(given) == pytest.approx(cosine)
        spiking = lesson(3.0)
        chosen = choose_temperature(spiking, step=1.0, epsilon=0.3)
        assert finite_difference_cosine(spiking, epsilon=0.3) == chosen.cosines[chosen.b]


def test_nothing_but_the_temperature_changes() -> None:
    """Norms and dropout in training mode: the same masks for every loss, statistics put back."""
    given = lesson(3.0)
    layers = [nn.Flatten(0, 1), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Unflatten(0, (5, 64))]
    net = nn.Sequential(*layers, LIF(surrogate=Dspike(3.0)), nn.Dropout(0.5), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = replace(given, net=net)
    with use_backend("reference"):
        torch.manual_seed(1)
        expected = torch.rand(1)
        torch.manual_seed(1)
        choices = [choose_temperature(given, step=0.5, elements=6) for _ in range(2)]
        assert torch.rand(1) == expected
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert net.training
    # Equal differences: the second search starts from another b but shares two candidates.
    shared = set(choices[0].cosines) & set(choices[1].cosines)
    assert shared and all(choices[0].cosines[b] == choices[1].cosines[b] for b in shared)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="learns the temperature"):
        choose_temperature(lesson(1.0, Dspike(nn.Parameter(torch.tensor(2.0)))))
    with pytest.raises(ValueError, match="whose surrogates are Dspike"):
        choose_temperature(lesson(1.0, ATan()))
