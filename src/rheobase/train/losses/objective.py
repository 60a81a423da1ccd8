"""What a training step minimises: a loss of the logits, and terms on what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from rheobase._numbers import numbers_checked
from rheobase.neurons import Membrane, record_membranes
from rheobase.surrogate.base import Schedule
from rheobase.train.losses.membrane import MembraneLoss
from rheobase.train.losses.readout import Loss

__all__ = ["MembraneTerm", "Objective", "StepsTerm", "Term", "outputs"]


class Term(Protocol):
    """A part of the objective that looks into the network while it computes."""

    def watching(
        self, net: nn.Module, inputs: Tensor
    ) -> AbstractContextManager[Callable[[Tensor], Tensor]]:
        """Within the block `net(inputs)` is called; what is yielded makes its logits the term."""


@numbers_checked
class MembraneTerm:
    """A loss on membranes, weighted.

    Args:
        loss: Of `rheobase.train.losses.membrane`.
        weight: A number, or a schedule over the course of training (a function of 0 to 1).

    Raises:
        ValueError: The network's membranes carry no gradient (when the loss is asked for).

    >>> from rheobase.neurons import IF
    >>> from rheobase.train.losses import im_loss
    >>> import torch
    >>> net, x = IF(), torch.full((4, 1, 3), 0.5)
    >>> with MembraneTerm(im_loss, weight=2.0).watching(net, x) as value:
    ...     spikes = net(x)
    >>> value(spikes)  # h is 0.5, 1, 0.5, 1
    tensor(0.1250)
    """

    def __init__(self, loss: MembraneLoss, weight: float | Schedule = 1.0) -> None:
        self.loss = loss
        self.weight: Schedule = weight if callable(weight) else lambda fraction: weight
        self.fraction = 0.0

    @contextmanager
    def watching(self, net: nn.Module, inputs: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """See `Term`."""
        with record_membranes(net) as membranes:
            yield partial(self._value, membranes)

    def _value(self, membranes: list[Membrane], logits: Tensor) -> Tensor:
        if logits.requires_grad and membranes and not any(m.h.requires_grad for m in membranes):
            raise ValueError(
                "a loss on membranes would change nothing: those of this network's neurons carry "
                "no gradient, as theirs is that of a rate (DSR, tandem); take other neurons, or "
                "loss.membrane=none"
            )
        return self.weight(self.fraction) * self.loss(membranes)


@numbers_checked
class StepsTerm:
    """What a network says of the steps that its layers work for, weighted.

    Args:
        weight: Of the network's `time_penalty`, the share of steps that are on.

    Raises:
        ValueError: The network has no `time_penalty` (when watched).
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @contextmanager
    def watching(self, net: nn.Module, inputs: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """See `Term`."""
        penalty = getattr(net, "time_penalty", None)
        if penalty is None:
            raise ValueError(
                f"steps_weight={self.weight} needs a network whose layers learn for how many "
                f"steps they work, as those of spiking_vit_dts, got {type(net).__name__}"
            )
        yield lambda logits: self.weight * penalty()


class Objective:
    """A loss of the logits of every step, plus terms.

    Args:
        loss: Of logits `[T, N, classes]` and a target.
        terms: Added to it; see `MembraneTerm` and `Distillation`.
        head: Module whose output the loss takes; empty for the network's output.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> from rheobase.train.losses import cross_entropy_of_mean, rmp_loss
    >>> net = nn.Sequential(nn.Linear(3, 8), LIF(), nn.Linear(8, 2))
    >>> objective = Objective(cross_entropy_of_mean, [MembraneTerm(rmp_loss, 0.1)])
    >>> objective(net, net, torch.rand(4, 5, 3), torch.zeros(5, dtype=torch.int64)).shape
    torch.Size([])
    """

    def __init__(self, loss: Loss, terms: Sequence[Term] = (), head: str = "") -> None:
        self.loss = loss
        self.terms = list(terms)
        self.head = head

    def set_progress(self, fraction: float) -> None:
        """Tell scheduled weights how much of training is done, 0 to 1."""
        for term in self.terms:
            if isinstance(term, MembraneTerm):
                term.fraction = fraction

    def __call__(
        self, net: nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor, target: Tensor
    ) -> Tensor:
        """Return the objective, a scalar.

        Args:
            net: The network whose modules the terms look at.
            forward: Calls it on `inputs`: itself, or what wraps it (data parallelism, autocast).
            inputs: The batch.
            target: What `loss` takes.

        Raises:
            AttributeError: The network has no module of the name `head`.
        """
        with ExitStack() as stack:
            values = [stack.enter_context(term.watching(net, inputs)) for term in self.terms]
            found = stack.enter_context(outputs(net, [self.head] if self.head else []))
            logits = forward(inputs)
        total = self.loss(found[self.head].float() if self.head else logits, target)
        for value in values:
            total = total + value(logits)
        return total


@contextmanager
def outputs(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, the last output of each named module of ``net``."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            found[name] = output

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
