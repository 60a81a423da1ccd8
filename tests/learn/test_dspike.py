from __future__ import annotations

import pytest
import torch
from torch import nn

from rheobase.learn import Lesson
from rheobase.learn.dspike import choose_temperature
from rheobase.neurons import LIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import ATan, Dspike
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


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="whose surrogates are Dspike"):
        choose_temperature(lesson(1.0, ATan()))
