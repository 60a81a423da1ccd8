"""Reinforcement learning of spiking policies by policy gradients (REINFORCE).

A policy is a network of a sequence like any other: it acts in streaming, one step of the network a
step of the world, and learns from the whole episode in one call, which gives the same spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rheobase.experiments.cart_pole import CartPole
from rheobase.layers.sequential import TimeSequential
from rheobase.neurons import LIF
from rheobase.stateful import streaming

__all__ = ["Episode", "act", "advantages", "balance", "policy_loss", "spiking_policy"]

# About the size of each number of a state while the pole stands.
_SCALE = (1.0, 1.0, 0.1, 1.0)


class Episode(NamedTuple):
    """What N carts did: states ``[T, N, 4]``, actions ``[T, N]``, and where they still stood."""

    states: Tensor
    actions: Tensor
    standing: Tensor


def spiking_policy(hidden: int = 64, neuron: Callable[[], nn.Module] | None = None) -> nn.Module:
    """States ``[T, N, 4]`` to logits of the two actions, through one layer of spiking neurons.

    >>> spiking_policy()(torch.zeros(5, 2, 4)).shape
    torch.Size([5, 2, 2])
    """
    make = neuron or (lambda: LIF(tau=2.0, decay_input=False, v_threshold=0.5))
    return TimeSequential(nn.Linear(4, hidden), make(), nn.Linear(hidden, 2))


@torch.no_grad()
def act(
    policy: nn.Module, world: CartPole, carts: int, steps: int, generator: torch.Generator
) -> Episode:
    """Let the policy act, in streaming, until all poles have fallen or ``steps`` are over."""
    state = world.start(carts, generator)
    standing = torch.ones(carts, dtype=torch.bool)
    seen: list[Episode] = []
    with streaming(policy):
        while len(seen) < steps and standing.any():
            logits = policy(_scaled(state).unsqueeze(0))[0]
            action = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
            seen.append(Episode(state, action, standing))
            after = world.step(state, action)
            state = torch.where(standing.unsqueeze(1), after, state)
            standing = standing & ~world.fallen(state)
    return Episode(*(torch.stack(each) for each in zip(*seen, strict=True)))


def advantages(standing: Tensor, discount: float = 0.99) -> Tensor:
    """By how much each step's discounted return is above that of all carts that still stood.

    The reward of a step is 1. In units of their standard deviation; 0 where a pole had fallen.

    Args:
        standing: ``[T, N]``, whether a pole still stood.
        discount: of the next step's return.
    """
    rewards = standing.to(torch.get_default_dtype())
    returns, after = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        after = rewards[t] + discount * after * rewards[t]
        returns[t] = after
    baseline = (returns * rewards).sum(1, keepdim=True) / rewards.sum(1, keepdim=True)
    gain = (returns - baseline) * rewards
    spread = (gain.square().sum() / rewards.sum()).sqrt()
    return gain / (spread + 1e-8)


def policy_loss(logits: Tensor, actions: Tensor, gain: Tensor, standing: Tensor) -> Tensor:
    r"""The loss whose gradient is the policy gradient: the mean of :math:`-\log \pi(a_t)\,A_t`.

    Source: Williams 1992, Machine Learning 8, theorem 1.

    Args:
        logits: of the actions, ``[T, N, actions]``.
        actions: taken, ``[T, N]``.
        gain: their advantages A, ``[T, N]``.
        standing: which steps count, ``[T, N]``.
    """
    chosen = logits.log_softmax(-1).gather(2, actions.unsqueeze(2)).squeeze(2)
    return -(chosen * gain * standing).sum() / standing.sum()


def balance(
    policy: nn.Module | None = None,
    *,
    iterations: int = 60,
    carts: int = 16,
    steps: int = 200,
    lr: float = 0.01,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Teach a spiking policy to balance a pole: the mean length of its episodes, in order.

    Args:
        policy: any causal network from ``[T, N, 4]`` to ``[T, N, 2]``, learnt in place; default
            `spiking_policy`.
        iterations: episodes of all carts, each followed by a step of Adam.
        carts: that act side by side.
        steps: the longest episode.
        lr: of Adam.
        seed: of weights, starts and actions.
        report: called with a line every 10 iterations.

    Raises:
        ValueError: the policy looks ahead in time, or a number is below 1.
    """
    if min(iterations, carts, steps) < 1:
        raise ValueError(f"at least 1 each: {iterations=}, {carts=}, {steps=}")
    if policy is None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            policy = spiking_policy()
    generator, world = torch.Generator().manual_seed(seed), CartPole()
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    lengths: list[float] = []
    for iteration in range(iterations):
        episode = act(policy, world, carts, steps, generator)
        lengths.append(float(episode.standing.sum()) / carts)
        gain = advantages(episode.standing)
        logits = policy(_scaled(episode.states))
        optimizer.zero_grad()
        policy_loss(logits, episode.actions, gain, episode.standing).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if iteration % 10 == 9 or iteration + 1 == iterations:
            report(f"iteration {iteration + 1}: {lengths[-1]:.1f} of {steps} steps")
    return lengths


def _scaled(states: Tensor) -> Tensor:
    return states / states.new_tensor(_SCALE)
