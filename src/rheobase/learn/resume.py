"""ReSuMe: remote supervision of spike times."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase._numbers import Positive, Size
from rheobase.layers.spike_response import exponential
from rheobase.learn._responses import ResponseRule, desired_spikes, network, walk
from rheobase.learn.rule import Lesson, add_gradient

__all__ = ["ReSuMe"]


class ReSuMe(ResponseRule):
    r"""ReSuMe: STDP towards desired spikes, and away from those fired.

    :math:`\Delta W_{oi} = \sum_t (\hat s_o - s_o)^t\,[a + (\kappa * x_i)^t]` with an exponential
    :math:`\kappa`. The desired spikes of a label are regular ones of its neuron, and none of the
    others; other trains may be given as the target. The loss told is the number of spikes missing
    or too many. The rule says nothing of a bias, which stays as it is.

    Source: Ponulak & Kasinski 2010, Neural Computation 22(2), eq. 3.4.

    Args:
        tau: of :math:`\kappa`, in steps.
        a: the part that does not depend on timing.
        period: steps between the desired spikes of a label.

    Raises:
        ValueError: ``tau`` is not positive.
    """

    readouts = ("spikes",)
    single = True

    def __init__(self, tau: Positive = 5.0, a: float = 0.05, period: Size = 5) -> None:
        self.decay, self.a, self.period = exponential(tau), a, period

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        _, layers, x = network(lesson)
        layer, (T, N) = layers[0], x.shape[:2]
        desired = desired_spikes(lesson.target, T, layer.out_features, self.period).to(x.dtype)
        trace, change = torch.zeros_like(x[0]), torch.zeros_like(layer.weight)
        total = torch.zeros((), device=x.device)
        for t, responses in enumerate(walk(layers, x)):
            trace = self.decay * trace + x[t]
            missing = desired[t] - responses[0].spikes
            change += missing.T @ (self.a + trace) / N
            total = total + missing.abs().sum() / N
        add_gradient(layer.weight, -change)
        return total
