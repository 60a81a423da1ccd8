"""The three-factor rule of SuperSpike."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase._numbers import Positive, Size
from rheobase.layers.spike_response import exponential
from rheobase.learn._responses import (
    ResponseRule,
    carriers,
    desired_spikes,
    known_feedback,
    network,
    walk,
)
from rheobase.learn.rule import Lesson, add_gradient

__all__ = ["SuperSpikeRule"]


class SuperSpikeRule(ResponseRule):
    r"""SuperSpike: error, times a filtered product of slope and presynaptic trace.

    :math:`-\frac{\partial L}{\partial W_{ij}} = \sum_t e_i^t\;\alpha * [\sigma'(u_i)\,P_j]^t`
    for the van Rossum distance :math:`L = \frac12 \sum_t (\alpha * (\hat s_i - s_i))^2` of output
    spikes from desired ones, with :math:`e_i = \alpha * (\hat s_i - s_i)`. Hidden neurons get
    :math:`e_j = \sum_k B_{jk} e_k`. :math:`\alpha` is a double exponential.

    The desired spikes of a label are regular ones of its neuron, and none of the others. Recurrent
    weights are not trained.
    Source: Zenke & Ganguli 2018, Neural Computation 30(6), eqs. 2.9 to 2.13 and section 2.4
    (the optimiser's own business is what the paper calls the per-parameter rate).

    Args:
        tau_rise: of :math:`\alpha`, in steps.
        tau_decay: of :math:`\alpha`, in steps.
        feedback: B: ``symmetric`` (for one hidden layer), ``random`` or ``uniform``.
        seed: of random feedback.
        period: steps between the desired spikes of a label.

    Raises:
        ValueError: a time constant is not positive, or an unknown feedback; symmetric feedback for
            a network of several hidden layers.
    """

    readouts = ("spikes",)

    def __init__(
        self,
        tau_rise: Positive = 5.0,
        tau_decay: Positive = 10.0,
        feedback: str = "symmetric",
        seed: int = 0,
        period: Size = 10,
    ) -> None:
        self.rise, self.decay = exponential(tau_rise), exponential(tau_decay)
        self.feedback, self.seed, self.period = known_feedback(feedback), seed, period

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        self.check(lesson.net)
        _, layers, x = network(lesson)
        *hidden, last = layers
        T, N = x.shape[:2]
        desired = desired_spikes(lesson.target, T, last.out_features, self.period).to(x.dtype)
        carried_by = carriers(self.feedback, last, hidden, self.seed)
        error, total = _Alpha(self.rise, self.decay), torch.zeros((), device=x.device)
        eligible = [(_Alpha(self.rise, self.decay), _Alpha(self.rise, self.decay)) for _ in layers]
        for t, responses in enumerate(walk(layers, x)):
            wrong = error.step(responses[-1].spikes - desired[t]) / N
            total = total + 0.5 * N * wrong.square().sum()
            signals = [*(wrong @ carrier for carrier in carried_by), wrong]
            for layer, signal, response, (of_weight, of_bias) in zip(
                layers, signals, responses, eligible, strict=True
            ):
                slope = layer.surrogate(response.z)
                product = of_weight.step(slope.unsqueeze(-1) * response.trace.unsqueeze(1))
                add_gradient(layer.weight, torch.einsum("no,noi->oi", signal, product))
                add_gradient(layer.bias, (signal * of_bias.step(slope)).sum(0))
        return total


class _Alpha:
    """A double exponential, step by step."""

    def __init__(self, rise: float, decay: float) -> None:
        self.factors = rise, decay
        self.risen: Tensor | float = 0.0
        self.value: Tensor | float = 0.0

    def step(self, x: Tensor) -> Tensor:
        risen = self.factors[0] * self.risen + x
        value = self.factors[1] * self.value + risen
        self.risen, self.value = risen, value
        return value
