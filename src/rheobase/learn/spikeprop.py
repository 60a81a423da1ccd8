"""SpikeProp: gradient descent on spike times."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase.learn.rule import LearningRule, Lesson
from rheobase.models.spike_prop_net import SpikePropNet

__all__ = ["SpikeProp"]


class SpikeProp(LearningRule):
    r"""SpikeProp: :math:`E = \frac12 \sum_o (t_o - \hat t_o)^2` of the output spikes' times.

    The neuron of the label is to fire at ``early``, the others at ``late``; or the target gives the
    times. The gradient goes through :math:`\partial t/\partial u = -1/\dot u`; see
    `rheobase.models.spike_prop_net.SpikeTimes`.

    Source: Bohte, Kok & La Poutré 2002, Neurocomputing 48.

    Args:
        early: time of the label's spike.
        late: time of the others.

    Raises:
        ValueError: ``early`` is not before ``late``.
    """

    def __init__(self, early: float = 10.0, late: float = 16.0) -> None:
        if not early < late:
            raise ValueError(f"early={early} is not before late={late}")
        self.early, self.late = early, late

    def check(self, net: nn.Module) -> None:
        """Refuse a network without spike times.

        Raises:
            TypeError: not a `SpikePropNet`.
        """
        if not isinstance(net, SpikePropNet):
            raise TypeError(
                f"SpikeProp takes a network of spike times, got {type(net).__name__}; take a "
                "model of rheobase.models.spike_prop_net, such as spikeprop_mnist"
            )

    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        times, target = -lesson.net(lesson.inputs)[0], lesson.target
        if not target.is_floating_point():
            own = nn.functional.one_hot(target, times.shape[1]).bool()
            target = torch.where(own, self.early, self.late).to(times.dtype)
        loss = 0.5 * (times - target).square().sum(1).mean()
        if loss.requires_grad:
            loss.backward()
        told: Tensor = loss.detach()
        return told
