from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rheobase.learn import EqProp, Lesson
from rheobase.models.equilibrium_net import EquilibriumConfig, EquilibriumNet
from rheobase.train import cross_entropy_of_mean


def build(**options: object) -> EquilibriumNet:
    torch.manual_seed(0)
    settings = {"inputs": 6, "num_classes": 3, "steps": 400, "rate": 0.2} | options
    net = EquilibriumNet(EquilibriumConfig((5,), **settings)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in net.layers:
            layer.bias.fill_(0.5)  # activities inside (0, 1), where energies are smooth
            layer.weight.mul_(0.3)
    return net


def lesson(net: nn.Module) -> Lesson:
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).double()
    return Lesson(net, x, torch.tensor([0, 1, 2, 1]), cross_entropy_of_mean)


def cost(net: EquilibriumNet, given: Lesson) -> Tensor:
    wanted = nn.functional.one_hot(given.target, 3)
    return 0.5 * (net(given.inputs)[0] - wanted).square().sum(1).mean()


def gradients(rule: EqProp, net: EquilibriumNet) -> Tensor:
    net.zero_grad()
    rule(lesson(net))
    return torch.cat([p.grad.flatten() for p in net.parameters()])  # type: ignore[union-attr]


def true_gradient(net: EquilibriumNet) -> Tensor:
    """Of the cost at equilibrium, by central differences."""
    found, given = [], lesson(net)
    for parameter in net.parameters():
        flat = parameter.data.view(-1)
        for i in range(flat.numel()):
            values = []
            for step in (1e-5, -1e-5):
                flat[i] += step
                values.append(cost(net, given))
                flat[i] -= step
            found.append((values[0] - values[1]) / 2e-5)
    return torch.stack(found)


def test_small_nudges_give_the_gradient_of_the_cost() -> None:
    net = build()
    states = net.settle(lesson(net).inputs)
    assert all(s.min() > 0.0 and s.max() < 1.0 for s in states)
    true = true_gradient(net)
    errors = [float((gradients(EqProp(beta), net) - true).norm() / true.norm())
              for beta in (0.02, 0.01)]  # fmt: skip
    assert errors[1] < 0.02 and errors[1] == pytest.approx(errors[0] / 2, rel=0.1)  # first order
    exact = gradients(EqProp(0.005, both_signs=True), net)
    torch.testing.assert_close(exact, true, rtol=1e-3, atol=1e-5)


def test_states_settle_at_a_minimum_of_the_energy() -> None:
    net, x = build(), lesson(build()).inputs
    states = [s.requires_grad_() for s in net.settle(x)]
    slopes = torch.autograd.grad(net.energy(x, states).sum(), states)
    assert all(slope.abs().max() < 1e-10 for slope in slopes)


def test_spikes_settle_where_activities_do() -> None:
    x = lesson(build()).inputs
    analog = build(steps=400).settle(x)
    errors = []
    for steps in (50, 3200):
        spiking = build(steps=steps, spiking=True).settle(x)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(analog, spiking, strict=True)))
    assert errors[1] < 0.03 and errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("spiking", [False, True])
def test_it_learns_a_toy_task(spiking: bool) -> None:
    rng = torch.Generator().manual_seed(2)
    torch.manual_seed(2)
    config = EquilibriumConfig((20,), num_classes=3, inputs=8, steps=40, spiking=spiking)
    net = EquilibriumNet(config)
    target = torch.randint(3, (60,), generator=rng)
    patterns = torch.rand(3, 8, generator=rng)[target]
    x = (patterns + 0.1 * torch.randn(60, 8, generator=rng)).clamp(0.0, 1.0)
    assert (net(x)[0].argmax(1) == target).float().mean() < 0.7
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        EqProp(beta=0.5)(Lesson(net, x, target, cross_entropy_of_mean))
        optimizer.step()
    assert (net(x)[0].argmax(1) == target).float().mean() > 0.95


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="a network that settles, got Linear"):
        EqProp().check(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="above 0 as beta"):
        EqProp(0.0)
    with pytest.raises(ValueError, match="at least 1 or None as steps"):
        EqProp(steps=0)
    with pytest.raises(ValueError, match="takes 6 pixels, got 5"):
        build()(torch.rand(1, 5).double())
