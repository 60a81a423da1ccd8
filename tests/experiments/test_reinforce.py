from __future__ import annotations

import math

import pytest
import torch

import rheobase
from rheobase.experiments.cart_pole import CartPole
from rheobase.experiments.reinforce import (
    act,
    advantages,
    balance,
    policy_loss,
    spiking_policy,
)
from rheobase.neurons import PSN


def test_carts_obey_the_laws_of_motion() -> None:
    """Accelerations solve the two equations of force and torque, written without division."""
    world = CartPole(dt=1.0)
    rng = torch.Generator().manual_seed(0)
    state = torch.randn(50, 4, generator=rng, dtype=torch.float64)
    action = torch.randint(2, (50,), generator=rng)
    change = world.step(state, action) - state
    _, _, angle, turn = state.unbind(1)
    torch.testing.assert_close(change[:, 0], state[:, 1])
    torch.testing.assert_close(change[:, 2], turn)
    a, turning, push = change[:, 1], change[:, 3], 10.0 * (2.0 * action - 1.0)
    m, half, total = 0.1, 0.5, 1.1
    along = total * a + m * half * (turning * angle.cos() - turn.square() * angle.sin())
    torch.testing.assert_close(along, push.double())
    torque = 4.0 / 3.0 * half * turning + a * angle.cos()  # of a rod about its end, over m half
    torch.testing.assert_close(torque, 9.8 * angle.sin())
    assert world.fallen(torch.tensor([[2.5, 0, 0, 0], [0, 0, -0.3, 0], [2, 9, 0.2, 9]])).tolist() \
        == [True, True, False]  # fmt: skip


def test_the_mean_of_policy_gradients_is_the_gradient_of_the_mean_reward() -> None:
    """Over all actions with their probabilities, whatever the baseline (Williams 1992)."""
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    probability = logits.softmax(-1).flatten()
    (expected,) = torch.autograd.grad(-(probability * rewards).sum(), logits)
    one = torch.ones(1, 1, dtype=torch.bool)
    for baseline in (0.0, 1.7):
        found = torch.zeros_like(expected)
        for a in range(4):
            loss = policy_loss(logits, torch.tensor([[a]]), (rewards[a] - baseline) * one, one)
            found += probability[a].detach() * torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close(found, expected)


def test_advantages_compare_with_those_that_still_stand() -> None:
    standing = torch.tensor([[True, True], [True, True], [True, False]])
    gain = advantages(standing, discount=0.5)
    returns = torch.tensor([[1.75, 1.5], [1.5, 1.0], [1.0, 0.0]])
    raw = torch.tensor([[0.125, -0.125], [0.25, -0.25], [0.0, 0.0]])
    assert torch.equal(returns[:2] - returns[:2].mean(1, keepdim=True), raw[:2])
    spread = math.sqrt((2 * 0.125**2 + 2 * 0.25**2) / 5)
    torch.testing.assert_close(gain, raw / spread)


def test_what_it_did_in_streaming_is_what_it_learns_from() -> None:
    torch.manual_seed(0)
    policy = spiking_policy(16)
    episode = act(policy, CartPole(), 4, 30, torch.Generator().manual_seed(1))
    states = episode.states / torch.tensor([1.0, 1.0, 0.1, 1.0])
    with torch.no_grad(), rheobase.streaming(policy):
        pieces = torch.cat([policy(step.unsqueeze(0)) for step in states])
    assert torch.equal(pieces, policy(states).detach())
    assert episode.standing[0].all() and 5 < episode.standing.sum(0).float().mean() <= 30
    # Nothing moves once a pole has fallen.
    for t in range(1, len(states)):
        fell = ~episode.standing[t - 1]
        assert torch.equal(states[t, fell], states[t - 1, fell])


def test_a_spiking_policy_learns_to_balance() -> None:
    lines: list[str] = []
    lengths = balance(iterations=40, report=lines.append)
    assert lengths[0] < 40.0
    assert sum(lengths[-10:]) / 10 > 180.0
    assert len(lines) == 4 and lines[-1] == f"iteration 40: {lengths[-1]:.1f} of 200 steps"


def test_it_repeats_itself_and_refuses_what_cannot_be() -> None:
    runs = [balance(iterations=3, carts=2, steps=20, report=lambda _: None) for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) == 3
    with pytest.raises(ValueError, match="at least 1 each: iterations=0"):
        balance(iterations=0)
    with pytest.raises(ValueError, match="not causal"):
        balance(spiking_policy(8, lambda: PSN(200)), iterations=1)
