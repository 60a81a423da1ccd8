"""Spike-timing-dependent plasticity of pairs of spikes, and its modulation by reward.

Everything here works on spikes of one step, ``pre`` ``[N, in]`` and ``post`` ``[N, out]`` of a
weight ``[out, in]``; `rheobase.learn.plasticity` makes learning rules for networks of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rheobase._errors import unknown_name
from rheobase._numbers import Positive, numbers_checked

__all__ = ["PairSTDP", "Pairs", "RewardedSTDP", "Traces", "bounded"]

OfWeight = Callable[[Tensor], Tensor]
"""How much a pair changes a weight, as a function of the weight."""

ORDERS = ("together", "pre_first", "post_first")


def bounded(
    amplitude: float, mu: float = 0.0, *, towards: float = 1.0, away: float = 0.0
) -> OfWeight:
    r"""The power law :math:`A\,(\frac{b - w}{b - a})^\mu` of a weight on its way to a bound.

    Additive for ``mu = 0``, multiplicative for 1 (Gütig et al. 2003, J. Neuroscience 23(9)).

    Args:
        amplitude: A, the change far from the bound.
        mu: the power.
        towards: b, the bound that the change moves the weight towards.
        away: a, the other bound.

    Raises:
        ValueError: ``mu`` is negative, or the bounds are equal.

    >>> bounded(0.1, 1.0, towards=2.0)(torch.tensor([0.0, 1.0, 2.0]))
    tensor([0.1000, 0.0500, 0.0000])
    """

    if not mu >= 0.0 or towards == away:
        raise ValueError(f"mu={mu} must not be negative, nor the bounds {away} and {towards} equal")

    def of(weight: Tensor) -> Tensor:
        left = ((towards - weight) / (towards - away)).clamp(0.0, 1.0)
        return amplitude * (left.pow(mu) if mu else torch.ones_like(left))

    return of


def _one(weight: Tensor) -> Tensor:
    return torch.ones_like(weight)


@dataclass(frozen=True)
class Traces:
    """What the spikes so far have left, ``[N, in]`` and ``[N, out]``."""

    pre: Tensor
    post: Tensor


@dataclass(frozen=True)
class Pairs:
    """The pairs that end in one step: its spikes, and the traces that they meet.

    Attributes:
        pre: presynaptic spikes ``[N, in]``.
        post: postsynaptic spikes ``[N, out]``.
        met_pre: presynaptic traces as the postsynaptic spikes find them.
        met_post: postsynaptic traces as the presynaptic spikes find them.
    """

    pre: Tensor
    post: Tensor
    met_pre: Tensor
    met_post: Tensor

    def potentiation(self) -> Tensor:
        """Pairs of pre before post, ``[out, in]``, summed over the batch."""
        return self.post.T @ self.met_pre

    def depression(self) -> Tensor:
        """Pairs of post before pre, ``[out, in]``, summed over the batch."""
        return self.met_post.T @ self.pre


@numbers_checked
@dataclass(frozen=True)
class PairSTDP:
    r"""Pair-based STDP: :math:`\Delta w = f_+(w)\,x_{pre} s_{post} - f_-(w)\,x_{post} s_{pre}`.

    The traces x decay and grow by 1 with every spike (all pairs count), or become 1 (only the
    nearest does). For a single pair this is the window :math:`f_+ e^{-\Delta t/\tau_{pre}}` for
    :math:`\Delta t = t_{post} - t_{pre} > 0`, and :math:`-f_- e^{\Delta t/\tau_{post}}` below 0.

    Source: Bi & Poo 1998; Morrison, Diesmann & Gerstner 2008, Biological Cybernetics 98.

    Attributes:
        tau_pre: time constant of the presynaptic trace, in the unit of ``elapsed`` (steps).
        tau_post: of the postsynaptic trace.
        potentiation: :math:`f_+` of the weight.
        depression: :math:`f_-` of the weight.
        decay: ``exponential``, or ``linear``: the factor :math:`1 - 1/\tau` a step
            (SpikingJelly's STDP).
        order: what spikes of one step are to each other. ``together``: each meets the other's
            trace with the other's spike in it, and both parts change one weight (SpikingJelly).
            ``pre_first``: the presynaptic one comes first (Brian2). ``post_first``: neither
            spike meets the other, and potentiation is applied first (NEST, whose postsynaptic
            spikes arrive by a dendritic delay later).
        nearest: whether only nearest neighbours pair.

    Raises:
        ValueError: a time constant is not positive (linear: below 1), or an unknown word.

    >>> stdp = PairSTDP(tau_pre=2.0, tau_post=2.0)
    >>> pre, post = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    >>> traces, w = stdp.start(pre[:1], post[:1]), torch.zeros(1, 1)
    >>> for t in range(2):
    ...     pairs, traces = stdp.step(traces, pre[t:t + 1], post[t:t + 1])
    ...     w = w + stdp.change(w, pairs)
    >>> w  # exp(-1/2)
    tensor([[0.6065]])
    """

    tau_pre: float = 20.0
    tau_post: float = 20.0
    potentiation: OfWeight = _one
    depression: OfWeight = _one
    decay: Literal["exponential", "linear"] = "exponential"
    order: Literal["together", "pre_first", "post_first"] = "together"
    nearest: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.decay not in ("exponential", "linear"):
            raise ValueError(unknown_name("decay", self.decay, ("exponential", "linear")))
        if self.order not in ORDERS:
            raise ValueError(unknown_name("order", self.order, ORDERS))
        least = 1.0 if self.decay == "linear" else 0.0
        for name, tau in (("tau_pre", self.tau_pre), ("tau_post", self.tau_post)):
            if not (tau > 0.0 and tau >= least):
                raise ValueError(f"{name}={tau}: {self.decay} decay takes one above {least:g}")

    def start(self, pre: Tensor, post: Tensor) -> Traces:
        """Traces before the first spike, for spikes like ``pre`` and ``post``."""
        return Traces(torch.zeros_like(pre), torch.zeros_like(post))

    def step(
        self, traces: Traces, pre: Tensor, post: Tensor, elapsed: float = 1.0
    ) -> tuple[Pairs, Traces]:
        """The pairs that end now, and the traces after.

        Args:
            traces: after the step before.
            pre: spikes ``[N, in]``.
            post: spikes ``[N, out]``.
            elapsed: time since the step before.
        """
        old_pre = traces.pre * self._left(self.tau_pre, elapsed)
        old_post = traces.post * self._left(self.tau_post, elapsed)
        new_pre, new_post = self._with(old_pre, pre), self._with(old_post, post)
        met_pre = old_pre if self.order == "post_first" else new_pre
        met_post = new_post if self.order == "together" else old_post
        return Pairs(pre, post, met_pre, met_post), Traces(new_pre, new_post)

    def change(self, weight: Tensor, pairs: Pairs) -> Tensor:
        """What the pairs change of ``weight`` ``[out, in]``, if both parts see the same weight."""
        grown = self.potentiation(weight) * pairs.potentiation()
        return grown - self.depression(weight) * pairs.depression()

    def moved(self, weight: Tensor, pairs: Pairs, low: float, high: float) -> Tensor:
        """The weight after the pairs, its two parts in ``order``, each kept within bounds."""
        if self.order == "together":
            return (weight + self.change(weight, pairs)).clamp(low, high)
        for part in (0, 1) if self.order == "post_first" else (1, 0):
            if part == 0:
                weight = weight + self.potentiation(weight) * pairs.potentiation()
            else:
                weight = weight - self.depression(weight) * pairs.depression()
            weight = weight.clamp(low, high)
        return weight

    def window(self, delta_t: Tensor, weight: float = 0.5) -> Tensor:
        """What one pair changes, by the time from pre to post ``[...]``.

        At 0 it is what ``order`` says of spikes of one step.
        """
        w, apart = torch.full_like(delta_t, weight), delta_t.abs()
        after = self.potentiation(w) * self._left(self.tau_pre, 1.0) ** apart
        before = -self.depression(w) * self._left(self.tau_post, 1.0) ** apart
        same = {"together": after + before, "pre_first": after, "post_first": 0.0 * after}
        either = torch.where(delta_t > 0, after, before)
        return torch.where(delta_t == 0, same[self.order], either)

    def _left(self, tau: float, elapsed: float) -> float:
        if self.decay == "linear":
            return float((1.0 - 1.0 / tau) ** elapsed)
        return math.exp(-elapsed / tau)

    def _with(self, trace: Tensor, spikes: Tensor) -> Tensor:
        return torch.where(spikes > 0, spikes, trace) if self.nearest else trace + spikes


@numbers_checked
class RewardedSTDP:
    r"""Reward-modulated STDP: pairs make a synapse eligible, the reward changes it.

    The eligibility :math:`\xi_t` is what `PairSTDP` would change, sample by sample. With reward R

    * MSTDP: :math:`\Delta w_t = R_t\,\xi_{t-1}`;
    * MSTDPET, if ``tau_eligibility`` is given: :math:`E_t = E_{t-1}\,e^{-1/\tau_e} +
      \xi_{t-1}/\tau_e` and :math:`\Delta w_t = R_t\,E_t`.

    Source: Florian 2007, Neural Computation 19(6), eqs. 24 to 29 (a reward judges the pairs of the
    step before it).

    Args:
        stdp: which pairs; their traces decay exponentially in the paper.
        weight: ``[out, in]`` at the start.
        tau_eligibility: in steps; None for no memory of earlier pairs.

    Raises:
        ValueError: ``tau_eligibility`` is not positive.

    >>> learner = RewardedSTDP(PairSTDP(), torch.zeros(1, 1))
    >>> one, reward = torch.ones(1, 1), torch.ones(1)
    >>> learner.step(one, 0.0 * one, reward).item(), learner.step(one, one, reward).item()
    (0.0, 0.0)
    """

    def __init__(
        self, stdp: PairSTDP, weight: Tensor, tau_eligibility: Positive | None = None
    ) -> None:
        self.stdp, self.weight = stdp, weight
        self.tau = tau_eligibility
        self.traces: Traces | None = None
        self.pairs: Tensor | None = None  # of the step before, [N, out, in]
        self.eligible: Tensor | None = None

    def step(self, pre: Tensor, post: Tensor, reward: Tensor) -> Tensor:
        """What the reward of this step changes of the weight, ``[out, in]``.

        Args:
            pre: spikes ``[N, in]``.
            post: spikes ``[N, out]``.
            reward: of each sample, ``[N]``, or of each of its neurons, ``[N, out]``.
        """
        change = torch.zeros_like(self.weight)
        if self.pairs is not None:
            self.eligible = self._eligible(self.pairs)
            each = reward if reward.dim() == 2 else reward.unsqueeze(-1)
            change = (each.unsqueeze(-1) * self.eligible).sum(0)
        traces = self.stdp.start(pre, post) if self.traces is None else self.traces
        met, self.traces = self.stdp.step(traces, pre, post)
        w = self.weight
        self.pairs = self.stdp.potentiation(w) * met.post.unsqueeze(-1) * met.met_pre.unsqueeze(
            1
        ) - self.stdp.depression(w) * met.met_post.unsqueeze(-1) * met.pre.unsqueeze(1)
        return change

    def _eligible(self, pairs: Tensor) -> Tensor:
        if self.tau is None:
            return pairs
        before = torch.zeros_like(pairs) if self.eligible is None else self.eligible
        return before * math.exp(-1.0 / self.tau) + pairs / self.tau
