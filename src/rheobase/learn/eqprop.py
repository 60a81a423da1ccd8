"""Equilibrium propagation."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase._numbers import Positive, Size
from rheobase.learn.rule import LearningRule, Lesson
from rheobase.models.equilibrium_net import EquilibriumNet, Nudge

__all__ = ["EqProp"]


class EqProp(LearningRule):
    r"""Equilibrium propagation: the difference of two equilibria is a gradient.

    The network settles freely, then again with its outputs nudged towards the target by
    :math:`\beta`. :math:`\frac1\beta(\frac{\partial E}{\partial\theta}(s^\beta) - \frac{\partial
    E}{\partial\theta}(s^0))`, made of local products of activities, tends to the gradient of the
    cost at the free equilibrium as :math:`\beta \to 0`.

    Source: Scellier & Bengio 2017, Frontiers in Computational Neuroscience 11:24, eqs. 11 and 24;
    both signs of :math:`\beta` as in Laborieux et al. 2021, arXiv 2006.03824, eq. 9. Spiking
    networks (O'Connor et al. 2019) settle by spikes.

    Args:
        beta: strength of the nudge.
        steps: of the nudged phase; None takes as many as the free one.
        both_signs: nudge towards and away from the target, which is exact to the next order.

    Raises:
        ValueError: ``beta`` is not positive, or ``steps`` below 1.
    """

    def __init__(
        self, beta: Positive = 0.5, steps: Size | None = None, both_signs: bool = False
    ) -> None:
        self.beta, self.steps, self.both_signs = beta, steps, both_signs

    def check(self, net: nn.Module) -> None:
        """Refuse a network that does not settle.

        Raises:
            TypeError: not an `EquilibriumNet`.
        """
        if not isinstance(net, EquilibriumNet):
            raise TypeError(
                f"equilibrium propagation takes a network that settles, got {type(net).__name__}; "
                "take a model of rheobase.models.equilibrium_net, such as equilibrium_mnist"
            )

    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`; the loss told is the cost."""
        net = lesson.net
        assert isinstance(net, EquilibriumNet)
        x, target = net.clamped(lesson.inputs), lesson.target
        if target.dim() == 1:
            target = nn.functional.one_hot(target, net.config.num_classes)
        target = target.to(x.dtype)
        free = net.settle(x)
        steps = net.config.steps if self.steps is None else self.steps
        towards = net.settle(x, free, Nudge(target, self.beta), steps)
        away, width = free, self.beta
        if self.both_signs:
            away, width = net.settle(x, free, Nudge(target, -self.beta), steps), 2.0 * self.beta
        difference = net.energy(x, towards) - net.energy(x, away)
        (difference.mean() / width).backward()  # type: ignore[no-untyped-call]
        return 0.5 * (free[-1] - target).square().sum(1).mean()
