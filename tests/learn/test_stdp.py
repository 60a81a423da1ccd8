from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheobase.learn import PairSTDP, RewardedSTDP, bounded


def pair(stdp: PairSTDP, pre_at: int, post_at: int) -> float:
    """What a single pair changes, simulated step by step."""
    silent = torch.zeros(1, 1, dtype=torch.float64)
    weight, traces = silent + 0.5, stdp.start(silent, silent)
    for t in range(40):
        pre, post = silent + float(t == pre_at), silent + float(t == post_at)
        pairs, traces = stdp.step(traces, pre, post)
        weight = weight + stdp.change(weight, pairs)
    return weight.item() - 0.5


@pytest.mark.parametrize("order", ["together", "pre_first", "post_first"])
@pytest.mark.parametrize("delta", [-7, -1, 0, 1, 9])
def test_the_window_is_what_one_pair_changes(order: str, delta: int) -> None:
    stdp = PairSTDP(4.0, 6.0, bounded(0.3), bounded(0.2), order=order)  # type: ignore[arg-type]
    expected = stdp.window(torch.tensor(float(delta), dtype=torch.float64))
    assert pair(stdp, 15, 15 + delta) == pytest.approx(expected.item(), abs=1e-14)
    if delta > 0:
        assert expected.item() == pytest.approx(0.3 * math.exp(-delta / 4.0))
    if delta < 0:
        assert expected.item() == pytest.approx(-0.2 * math.exp(delta / 6.0))


@pytest.mark.parametrize("delta", [-3, 0, 5])
def test_the_window_of_linear_decay_is_a_power_of_what_is_left(delta: int) -> None:
    stdp = PairSTDP(4.0, 6.0, bounded(0.3), bounded(0.2), decay="linear")
    expected = stdp.window(torch.tensor(float(delta), dtype=torch.float64))
    assert pair(stdp, 15, 15 + delta) == pytest.approx(expected.item(), abs=1e-14)
    one = {-3: -0.2 * (5 / 6) ** 3, 0: 0.3 - 0.2, 5: 0.3 * (3 / 4) ** 5}[delta]
    assert expected.item() == pytest.approx(one)


def test_only_nearest_neighbours_pair() -> None:
    pre = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1)
    post = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    found = []
    for nearest in (False, True):
        stdp = PairSTDP(2.0, 2.0, nearest=nearest)
        traces, change = stdp.start(pre[0], post[0]), torch.zeros(1, 1)
        for t in range(3):
            pairs, traces = stdp.step(traces, pre[t], post[t])
            change = change + stdp.change(change, pairs)
        found.append(change.item())
    assert found == pytest.approx([math.exp(-0.5) + math.exp(-1.0), math.exp(-0.5)])


def test_weights_stay_within_bounds_and_slow_down_near_them() -> None:
    one = torch.ones(1, 1)
    soft = PairSTDP(potentiation=bounded(0.5, 1.0), depression=bounded(0.0))
    hard = PairSTDP(potentiation=bounded(0.5), depression=bounded(0.0))
    for stdp, expected in ((soft, 0.95), (hard, 1.0)):
        pairs, _ = stdp.step(stdp.start(one, one), one, one)
        assert stdp.moved(0.9 * one, pairs, 0.0, 1.0).item() == pytest.approx(expected)


def test_a_neuron_learns_the_inputs_that_come_before_its_spikes() -> None:
    """Half of the inputs fire together and drive the neuron; STDP favours them (Song 2000)."""
    rng = torch.Generator().manual_seed(0)
    stdp = PairSTDP(10.0, 10.0, bounded(0.01), bounded(0.013), order="pre_first")
    weight = torch.full((1, 40), 0.5)
    membrane = torch.zeros(1, 1)
    silent = torch.zeros(1, 40)
    traces = stdp.start(silent, membrane)
    for _ in range(3000):
        together = torch.rand(1, 1, generator=rng) < 0.05
        alone = torch.rand(1, 40, generator=rng) < 0.05
        pre = torch.where(torch.arange(40) < 20, together, alone).float()
        membrane = 0.8 * membrane + pre @ weight.T
        post = (membrane >= 6.0).float()
        membrane = membrane * (1.0 - post)
        pairs, traces = stdp.step(traces, pre, post)
        weight = stdp.moved(weight, pairs, 0.0, 1.0)
    assert weight[0, :20].mean() > 0.8 > 0.45 > weight[0, 20:].mean()


def test_reward_reverses_and_switches_off_learning() -> None:
    rng = torch.Generator().manual_seed(1)
    pre = (torch.rand(30, 2, 3, generator=rng) < 0.3).double()
    post = (torch.rand(30, 2, 4, generator=rng) < 0.3).double()

    def learnt(reward: Tensor, tau: float | None) -> Tensor:
        learner = RewardedSTDP(PairSTDP(), torch.zeros(4, 3).double(), tau)
        changes = [learner.step(pre[t], post[t], reward) for t in range(30)]
        return torch.stack(changes).sum(0)

    good = torch.ones(2).double()
    for tau in (None, 5.0):
        assert learnt(good, tau).abs().sum() > 1.0
        assert torch.equal(learnt(-good, tau), -learnt(good, tau))
        assert not learnt(0.0 * good, tau).any()
        assert torch.equal(learnt(good.unsqueeze(1).expand(2, 4), tau), learnt(good, tau))


def test_eligibility_remembers_pairs_until_the_reward_comes() -> None:
    pre = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).view(5, 1, 1)
    post = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]).view(5, 1, 1)
    late = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    at_once, remembered = (
        RewardedSTDP(PairSTDP(2.0, 2.0), torch.zeros(1, 1), tau) for tau in (None, 3.0)
    )
    changes = [
        (at_once.step(pre[t], post[t], late[t : t + 1]).item(),
         remembered.step(pre[t], post[t], late[t : t + 1]).item())
        for t in range(5)
    ]  # fmt: skip
    assert changes[-1][0] == 0.0
    # One pair of delay 1, eligible from the next step on, two decays before the reward.
    assert changes[-1][1] == pytest.approx(math.exp(-0.5) / 3.0 * math.exp(-2.0 / 3.0))


def test_what_cannot_be_is_refused() -> None:
    for make, words in (
        (lambda: PairSTDP(tau_pre=0.0), "tau_pre=0.0: exponential decay"),
        (lambda: PairSTDP(tau_post=0.5, decay="linear"), "tau_post=0.5: linear decay"),
        (lambda: PairSTDP(order="togeter"), "unknown order 'togeter'; did you mean 'together'"),  # type: ignore[arg-type]
        (lambda: bounded(1.0, -1.0), "mu=-1.0 must not be negative"),
        (lambda: bounded(1.0, towards=2.0, away=2.0), "bounds 2.0 and 2.0 equal"),
        (
            lambda: RewardedSTDP(PairSTDP(), torch.zeros(1, 1), 0.0),
            "above 0 or None as tau",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make()
