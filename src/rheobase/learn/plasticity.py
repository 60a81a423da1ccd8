"""STDP and reward-modulated STDP as learning rules of networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rheobase._errors import unknown_name
from rheobase._numbers import Limit, Positive
from rheobase.learn.rule import LearningRule, Lesson, add_gradient
from rheobase.learn.stdp import PairSTDP, RewardedSTDP, bounded
from rheobase.neurons import Neuron

__all__ = ["RSTDP", "STDP"]


class STDP(LearningRule):
    r"""STDP of some layers, with backpropagation of the loss for all the others.

    A plastic layer is a linear one and the neuron that runs after it. Its weights change by
    `PairSTDP` with soft bounds, summed over time and averaged over the batch; its bias stays.
    Between the two may stand what has no weights of its own, or a norm. What gradients go to
    earlier layers pass through it. With the head alone left to backpropagation this is unsupervised
    features under a trained readout; with more layers left, the hybrid of backpropagation and STDP.

    Args:
        layers: names of the plastic linear layers in the network; empty takes all those that a
            neuron follows.
        tau_pre: time constant of presynaptic traces, in steps.
        tau_post: of postsynaptic traces.
        a_plus: size of potentiation.
        a_minus: size of depression.
        mu: power of the soft bounds; 0 for none (additive).
        low: weights do not fall below.
        high: weights do not grow above.

    Raises:
        ValueError: a name that is no linear layer (the nearest are offered), no neuron after it (or
            after any), one that is given other than ``[N, in]`` at each step, or numbers out of
            their domain.
    """

    def __init__(
        self,
        layers: Sequence[str] = (),
        tau_pre: float = 2.0,
        tau_post: float = 2.0,
        a_plus: float = 1.0,
        a_minus: float = 1.0,
        mu: float = 1.0,
        low: Limit = -1.0,
        high: Limit = 1.0,
    ) -> None:
        if not low < high:
            raise ValueError(f"low={low} is not below high={high}")
        self.layers = tuple(layers)
        self.stdp = PairSTDP(
            tau_pre,
            tau_post,
            bounded(a_plus, mu, towards=high, away=low),
            bounded(a_minus, mu, towards=low, away=high),
        )

    def check(self, net: nn.Module) -> None:
        """Refuse names that are not there.

        Raises:
            ValueError: as above.
        """
        self.plastic(net)

    def plastic(self, net: nn.Module) -> dict[str, nn.Linear]:
        """The plastic layers by name."""
        linear = {name: m for name, m in net.named_modules() if isinstance(m, nn.Linear)}
        if not linear:
            raise ValueError(f"STDP changes linear layers, and {type(net).__name__} has none")
        for name in self.layers:
            if name not in linear:
                raise ValueError(unknown_name("linear layer", name, linear))
        return {name: linear[name] for name in self.layers or linear}

    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        with _watched(lesson.net, self.plastic(lesson.net)) as seen:
            logits = lesson.net(lesson.inputs)
        spiking = _paired(seen, needed=bool(self.layers))
        loss = lesson.loss(logits, lesson.target)
        if loss.requires_grad:
            with _gradients_kept([synapse.layer for synapse in spiking]):
                loss.backward()  # type: ignore[no-untyped-call]
        for synapse in spiking:
            self.learn(synapse, lesson, logits.detach())
        return loss.detach()

    @torch.no_grad()
    def learn(self, synapse: _Synapse, lesson: Lesson, logits: Tensor) -> None:
        """Add what the spikes change to the gradient of one layer."""
        weight, (pre, post) = synapse.layer.weight, synapse.spikes(logits.shape[0])
        traces, change = self.stdp.start(pre[0], post[0]), torch.zeros_like(weight)
        for t in range(pre.shape[0]):
            pairs, traces = self.stdp.step(traces, pre[t], post[t])
            change += self.stdp.change(weight, pairs)
        add_gradient(weight, -change / pre.shape[1])


class RSTDP(STDP):
    r"""Reward-modulated STDP: pairs that led to the right answer are strengthened.

    Eligibility and reward are those of `RewardedSTDP`. The answer at a step is the class with most
    output so far. Layers before the last get the reward 1 where it is right and -1 where it is
    wrong; so do the neurons of the last layer that belong to the answer or, where it is wrong, to
    the label, which gets 1 (without that, a neuron that never fires is never rewarded). The others'
    reward is 0.

    Source: Florian 2007, Neural Computation 19(6); the answer's neurons alone are rewarded as in
    Mozafari et al. 2018, arXiv 1705.09132.

    Args:
        tau_eligibility: memory of pairs, in steps; None for none.
        options: those of `STDP`.
    """

    def __init__(self, tau_eligibility: Positive | None = 5.0, **options: Any) -> None:
        super().__init__(**options)
        self.tau_eligibility = tau_eligibility

    @torch.no_grad()
    def learn(self, synapse: _Synapse, lesson: Lesson, logits: Tensor) -> None:
        """See `STDP`."""
        weight, (pre, post) = synapse.layer.weight, synapse.spikes(logits.shape[0])
        learner = RewardedSTDP(self.stdp, weight, self.tau_eligibility)
        output = post.shape[2] == logits.shape[2] and torch.equal(post, logits)
        change, so_far = torch.zeros_like(weight), torch.zeros_like(logits[0])
        for t in range(pre.shape[0]):
            so_far += logits[t]
            reward = _reward(so_far, lesson.target, output)
            change += learner.step(pre[t], post[t], reward)
        add_gradient(weight, -change / pre.shape[1])


def _reward(so_far: Tensor, target: Tensor, output: bool) -> Tensor:
    """Reward of each sample ``[N]``, or of each output neuron ``[N, classes]``."""
    answer = so_far.argmax(-1)
    right = (answer == target) & (so_far != 0).any(-1)  # without any output there is no answer
    each = torch.where(right, 1.0, -1.0).to(so_far.dtype)
    if not output:
        return each
    reward = torch.zeros_like(so_far).scatter_(1, answer.unsqueeze(1), each.unsqueeze(1))
    return reward.scatter_(1, target.unsqueeze(1), 1.0)


@dataclass
class _Synapse:
    """A plastic layer, what it was given and what the neuron after it fired."""

    name: str
    layer: nn.Linear
    pre: Tensor
    post: Tensor | None = None

    def spikes(self, T: int) -> tuple[Tensor, Tensor]:
        """Both as ``[T, N, features]``."""
        assert self.post is not None
        post = self.post.flatten(2).detach()
        if post.shape[2] != self.layer.out_features:
            raise ValueError(
                f"the neuron after {self.name} fires {list(self.post.shape)}; STDP takes layers of "
                f"{self.layer.out_features} neurons, [T, N, {self.layer.out_features}]"
            )
        pre = self.pre.reshape(-1, post.shape[1], self.layer.in_features).detach()
        # The first layer may have seen a repeated image once.
        return pre.expand(T, *pre.shape[1:]), post


@dataclass
class _Seen:
    synapses: list[_Synapse] = field(default_factory=list)


def _paired(seen: _Seen, needed: bool) -> list[_Synapse]:
    """The layers that a neuron followed."""
    for synapse in seen.synapses:
        if synapse.post is None and needed:
            raise ValueError(f"no neuron runs after {synapse.name}: it has no spikes to learn from")
    found = [synapse for synapse in seen.synapses if synapse.post is not None]
    if not found:
        raise ValueError("no neuron runs after any linear layer: STDP has nothing to change")
    return found


@contextmanager
def _gradients_kept(layers: list[nn.Linear]) -> Iterator[None]:
    """Within the block, whatever becomes of these layers' gradients is forgotten after it."""
    kept = [(p, p.grad) for layer in layers for p in layer.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    yield
    for parameter, gradient in kept:
        parameter.grad = gradient


@contextmanager
def _watched(net: nn.Module, layers: dict[str, nn.Linear]) -> Iterator[_Seen]:
    """Within the block, note what goes into plastic layers and comes out of neurons after them."""
    seen = _Seen()
    last: list[_Synapse] = []
    names = {layer: name for name, layer in layers.items()}

    def layer_ran(layer: nn.Module, x: Tensor) -> None:
        last.clear()  # the next neuron belongs to this layer, plastic or not
        if isinstance(layer, nn.Linear) and layer in names:
            last.append(_Synapse(names[layer], layer, x))
        seen.synapses.extend(last)

    def neuron_ran(spikes: Tensor) -> None:
        for synapse in last:
            synapse.post = spikes
        last.clear()

    hooks = [
        module.register_forward_hook(lambda m, x, y: layer_ran(m, x[0]))
        for module in net.modules()
        if isinstance(module, nn.Linear | _ConvNd)
    ]
    hooks += [
        module.register_forward_hook(lambda m, x, y: neuron_ran(y))
        for module in net.modules()
        if isinstance(module, Neuron)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
