from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from train_toys import Net

from rheobase.neurons import GLIF
from rheobase.train import LAMB
from rheobase.train.config import OptimConfig, ScheduleConfig
from rheobase.train.optim import (
    build_ema,
    build_optimizer,
    build_scheduler,
    learning_rate,
    parameter_groups,
)


def test_lamb_follows_the_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64)
    parameter = nn.Parameter(x.clone())
    optimizer = LAMB([parameter], lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(1, 4):
        gradient = torch.randn_like(x)
        parameter.grad = gradient.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        r = (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-6) + 0.3 * x
        x = x - 0.1 * x.norm() / r.norm() * r
        torch.testing.assert_close(parameter.detach(), x, rtol=1e-12, atol=1e-14)


def test_lamb_moves_a_zero_parameter() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    LAMB([parameter], lr=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.full((3,), -0.1))


def test_one_dimensional_parameters_do_not_decay_unless_asked() -> None:
    decaying, fixed = parameter_groups(Net(), 0.5, decay_1d=False)
    assert all(p.dim() > 1 for p in decaying["params"])
    assert fixed["weight_decay"] == 0 and len(fixed["params"]) == 5
    (everything,) = parameter_groups(Net(), 0.5, decay_1d=True)
    assert len(everything["params"]) == len(list(Net().parameters()))


@pytest.mark.parametrize("decay_1d", [False, True])
def test_gates_of_glif_never_decay(decay_1d: bool) -> None:
    """As in its released code, whatever their shape: conductances are [T, channels]."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), GLIF(T=4, channels=3))
    decaying, fixed = parameter_groups(net, 0.5, decay_1d=decay_1d)
    gates = {id(p) for p in net[1].parameters()}
    assert len(gates) == 8 and gates <= {id(p) for p in fixed["params"]}
    assert len(decaying["params"]) == (2 if decay_1d else 1)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_every_optimiser_learns(name: str) -> None:
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.05))  # type: ignore[arg-type]
    x = torch.randn(64, 3)
    target = x.sum(1, keepdim=True)
    losses = []
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig())


def test_schedule_warms_up_falls_and_cools_down() -> None:
    cfg = ScheduleConfig(warmup_epochs=2, warmup_lr=0.1, min_lr=0.2, cooldown_epochs=1)
    rates = [learning_rate(step, 10, 8, 1.0, cfg) for step in range(80)]
    assert rates[0] == 0.1 and rates[10] == pytest.approx(0.55) and rates[20] == 1.0
    assert rates[45] == pytest.approx(0.6)  # half way down
    assert rates[30] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi / 5)))
    assert rates[70:] == [0.2] * 10
    constant = ScheduleConfig(name="constant", warmup_epochs=1)
    assert learning_rate(55, 10, 8, 1.0, constant) == 1.0


def test_schedule_goes_down_in_steps() -> None:
    cfg = ScheduleConfig("steps", milestones=(2, 3), factor=0.1)
    rates = [learning_rate(step, 10, 4, 1.0, cfg) for step in (0, 19, 20, 29, 30, 39)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_scheduler_drives_the_optimiser() -> None:
    cfg = ScheduleConfig(warmup_epochs=1, warmup_lr=0.25)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    scheduler = build_scheduler(optimizer, 4, 3, 0.5, cfg)
    for step in range(12):
        expected = learning_rate(step, 4, 3, 0.5, cfg)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        optimizer.step()
        scheduler.step()
    with pytest.raises(ValueError, match="do not fit"):
        build_scheduler(optimizer, 4, 3, 0.5, ScheduleConfig(warmup_epochs=4))


def test_weight_average() -> None:
    model = Net()
    assert build_ema(model, 0.0) is None
    ema = build_ema(model, 0.9)
    assert ema is not None
    before = model.head.weight.detach().clone()
    ema.update_parameters(model)  # the first update copies
    with torch.no_grad():
        model.head.weight.add_(1.0)
        model.norm.running_mean.add_(1.0)
    ema.update_parameters(model)
    torch.testing.assert_close(ema.module.head.weight, before + 0.1)
    torch.testing.assert_close(ema.module.norm.running_mean, torch.ones(6))
