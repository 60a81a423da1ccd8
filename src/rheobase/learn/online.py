"""Learning forward in time: backpropagation truncated to pieces, SLTT and OTTT.

The network goes through the sequence in pieces, its state detached between them, and each piece is
differentiated and forgotten before the next: what is saved for the backward pass does not grow with
T. The loss of a sequence is the mean over its steps of the loss of each piece.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from rheobase._numbers import Share, Size
from rheobase.learn.rule import LearningRule, Lesson
from rheobase.learn.traces import presynaptic_traces
from rheobase.stateful import streaming

__all__ = ["OTTT", "SLTT", "TruncatedBPTT"]


class _InPieces(LearningRule):
    """Forward and backward piece by piece."""

    steps: int = 1
    """Steps in a piece."""
    every_step: bool = False
    """Whether the weights move after every piece."""

    def check(self, net: nn.Module) -> None:
        """Refuse a network that looks ahead in time.

        Raises:
            ValueError: a module is not causal.
        """
        try:
            with streaming(net, norms_by_piece=True):
                pass
        except ValueError as error:
            raise ValueError(
                f"{type(self).__name__} learns piece by piece, but {error}; rule=bptt trains it"
            ) from error

    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        sequence, net = lesson.sequence, lesson.net
        T = sequence.shape[0]
        learns = self.chosen(T)
        total = torch.zeros((), device=sequence.device)
        with streaming(net, norms_by_piece=True), self.watching(net):
            for first in range(0, T, self.steps):
                piece = sequence[first : first + self.steps]
                with torch.set_grad_enabled(first in learns):
                    loss = lesson.loss(net(piece), lesson.target) * (piece.shape[0] / T)
                if first in learns:
                    loss.backward()  # type: ignore[no-untyped-call]
                total = total + loss.detach()
                if self.every_step and first + self.steps < T:
                    lesson.update()
        return total

    def chosen(self, T: int) -> set[int]:
        """The first steps of the pieces that are learnt from."""
        return set(range(0, T, self.steps))

    def watching(self, net: nn.Module) -> AbstractContextManager[object]:
        """What is around the whole sequence."""
        return nullcontext()


class TruncatedBPTT(_InPieces):
    """Backpropagation through pieces of time (Williams & Peng 1990, Neural Computation 2(4)).

    Args:
        steps: length of a piece; with T it is backpropagation through time.

    Raises:
        ValueError: ``steps`` is below 1; the network is not causal.

    >>> from rheobase.neurons import LIF
    >>> net, x = nn.Sequential(LIF(), nn.Linear(3, 2)), torch.ones(4, 1, 3)
    >>> def loss(logits, target):
    ...     return (logits - target).square().mean()
    >>> TruncatedBPTT(steps=2)(Lesson(net, x, torch.zeros(2), loss)).shape
    torch.Size([])
    """

    def __init__(self, steps: Size = 2) -> None:
        self.steps = steps


class SLTT(_InPieces):
    """Spatial learning through time: the gradient of every step alone.

    The membrane is carried forward, but no gradient goes back through it. Batch norm in training
    mode takes the statistics of each step, as in the released code.
    Source: Meng et al. 2023 (SLTT), arXiv 2302.14311, algorithm 1; SLTT-K is algorithm 2.

    Args:
        k: learn from this many steps of each batch, chosen at random (SLTT-K); None learns from
            all. Their gradients are not scaled up for those left out, as in the released code.

    Raises:
        ValueError: ``k`` is below 1 or above T; the network is not causal.
    """

    def __init__(self, k: Size | None = None) -> None:
        self.k = k

    def chosen(self, T: int) -> set[int]:
        """All steps, or k at random (PyTorch's generator, which `Trainer` seeds for each step)."""
        if self.k is None:
            return set(range(T))
        if self.k > T:
            raise ValueError(f"k={self.k} steps to learn from, but the sequence has T={T}")
        return set(torch.randperm(T)[: self.k].tolist())


class OTTT(_InPieces):
    r"""Online training through time: presynaptic traces instead of spikes.

    As SLTT, but a layer fed by neurons gets the gradient
    :math:`\partial L_t/\partial W = \delta_t\,\hat a_t^T` with
    :math:`\hat a_t = \lambda\,\hat a_{t-1} + s_t`: the past of the membrane, without the reset.
    :math:`\lambda` is the decay of the neuron before the layer. The first layer sees its input.
    Source: Xiao et al. 2022 (OTTT), arXiv 2210.04195, eqs. 6 to 9 and algorithm 1.

    Args:
        every_step: move the weights after every step (OTTT_O) instead of once a batch (OTTT_A).
        decay: :math:`\lambda`, for neurons that have no single one; None takes the neurons'.

    Raises:
        ValueError: the network is not causal, or a neuron has no decay factor of its own.
    """

    def __init__(self, every_step: bool = False, decay: Share | None = None) -> None:
        self.every_step = every_step
        self.decay = decay

    def check(self, net: nn.Module) -> None:
        """Refuse a network that looks ahead in time, or neurons of unknown decay.

        Raises:
            ValueError: as above.
        """
        super().check(net)
        with self.watching(net):
            pass

    def watching(self, net: nn.Module) -> AbstractContextManager[object]:
        """Traces in the place of spikes, in the gradients of weights."""
        return presynaptic_traces(net, self.decay)
