"""What every learning rule is: an object that fills the gradients of a network for one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from rheobase._numbers import NumbersChecked
from rheobase.layers import repeat

__all__ = ["LearningRule", "Lesson", "Loss", "add_gradient"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""What makes a scalar of logits ``[T, N, classes]`` and a target."""


def _no_update() -> None:
    raise ValueError("this rule updates the weights within a batch; give the lesson an update=")


@dataclass(frozen=True)
class Lesson:
    """One batch, as a learning rule is given it.

    Attributes:
        net: whose parameters' ``.grad`` the rule adds to.
        inputs: what ``net`` takes: a sequence ``[T, N, ...]``, or images ``[N, ...]``.
        target: labels ``[N]`` (int64), or what else ``loss`` takes.
        loss: of logits ``[T, N, classes]`` and the target.
        repeats: how often ``net`` repeats its images; None where ``inputs`` are a sequence.
        update: does an optimiser step now and clears the gradients, for rules that learn within
            a sequence.
    """

    net: nn.Module
    inputs: Tensor
    target: Tensor
    loss: Loss
    repeats: int | None = None
    update: Callable[[], None] = _no_update

    @property
    def sequence(self) -> Tensor:
        """The inputs of every step, ``[T, N, ...]``; images are repeated without copying."""
        return self.inputs if self.repeats is None else repeat(self.inputs, self.repeats)


class LearningRule(NumbersChecked, ABC):
    """Base of all rules. What sets a rule's numbers are the arguments of its ``__init__``.

    A rule adds to ``.grad`` what the optimiser is to go down, whatever it is made of: the gradient
    of a loss, or the negative of the change that a plasticity rule wants. Plain SGD with learning
    rate 1 then applies a change as its paper writes it. Between batches a rule remembers nothing,
    so a run that is stopped continues bit for bit.
    """

    def check(self, net: nn.Module) -> None:
        """Refuse a network that this rule cannot train, before any training.

        Raises:
            TypeError, ValueError: saying which part of it, and what would do.
        """

    @abstractmethod
    def __call__(self, lesson: Lesson) -> Tensor:
        """Add to the gradients of ``lesson.net``; return the loss of the batch, a scalar."""


def add_gradient(parameter: Tensor | None, gradient: Tensor) -> None:
    """Add to ``parameter.grad``; nothing for a parameter that is not there, or fixed."""
    if parameter is None or not parameter.requires_grad:
        return
    gradient = gradient.to(parameter.dtype)
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
