"""Losses over the logits of every time step, `[T, N, classes]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase._numbers import Share, numbers_checked
from rheobase.ops.eager import is_seen_by_nobody
from rheobase.train.diagnose import check_labels

__all__ = [
    "TET",
    "Loss",
    "NextToken",
    "check_logits",
    "cross_entropy_of_mean",
    "squared_error_of_rates",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""What makes a scalar of logits `[T, N, classes]` and a target."""


def cross_entropy_of_mean(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of the logits averaged over time.

    Args:
        logits: `[T, N, classes]`.
        target: Labels `[N]` (int64), or class probabilities `[N, classes]` (mixup).
        label_smoothing: Probability mass spread evenly over the classes.

    Raises:
        ValueError: Shapes that do not fit.

    >>> cross_entropy_of_mean(torch.zeros(4, 2, 10), torch.tensor([3, 7]))  # ln 10
    tensor(2.3026)
    """
    check_logits(logits, target)
    return F.cross_entropy(logits.mean(0), target, label_smoothing=label_smoothing)


def squared_error_of_rates(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of the outputs averaged over time, as firing rates.

    The rate of the right class is to be 1, of the others 0 (Fang et al. 2021, arXiv 2007.05785).

    Args:
        logits: `[T, N, classes]`, spikes or real numbers.
        target: Labels `[N]` (int64), or class probabilities `[N, classes]`.

    Raises:
        ValueError: Shapes that do not fit.

    >>> squared_error_of_rates(torch.zeros(4, 2, 10), torch.tensor([3, 7]))
    tensor(0.1000)
    """
    check_logits(logits, target)
    rates = logits.mean(0)
    wanted = target if target.is_floating_point() else F.one_hot(target, rates.shape[1])
    return F.mse_loss(rates, wanted.to(rates.dtype))


@numbers_checked
@dataclass(frozen=True)
class TET:
    """Temporal efficient training: every time step must classify by itself.

    `(1 - lamb) * mean_t CE(o_t, y) + lamb * MSE(o, means)` (Deng et al. 2022, arXiv 2202.11946,
    eqs. 8-10). Called with logits `[T, N, classes]` and labels `[N]` or probabilities
    `[N, classes]`; raises ValueError for shapes that do not fit.
    """

    lamb: Share = 1e-3
    means: float = 1.0
    label_smoothing: Share = 0.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        check_logits(logits, target)
        every_step = target.expand(logits.shape[0], *target.shape).flatten(0, 1)
        error = F.cross_entropy(
            logits.flatten(0, 1), every_step, label_smoothing=self.label_smoothing
        )
        pull = (logits - self.means).square().mean()
        return (1 - self.lamb) * error + self.lamb * pull


@numbers_checked
@dataclass(frozen=True)
class NextToken:
    r"""What a language model learns: the cross-entropy of every step, with its next word.

    .. math:: \overline{CE(o_t, y_t)} + \frac{\lambda}{2} \overline{(\max_c o_{t,c})^2}

    The second part pulls logits towards 0, as RWKV and SpikeGPT do with a weight of 1e-4 (their
    code adds its gradient, "L2Wrap", and leaves it out of the loss that it shows).

    Called with logits and labels of every step, `[T, N, words]` and `[T, N]`; raises ValueError for
    shapes that do not fit.
    """

    pull: float = 1e-4
    label_smoothing: Share = 0.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        if target.shape != logits.shape[:2]:
            raise ValueError(
                f"target has shape {list(target.shape)}, logits {list(logits.shape)}; expected a "
                "label at every step, [T, N] (of data whose samples have one at every word)"
            )
        check_logits(logits.flatten(0, 1).unsqueeze(0), target.flatten())
        error = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=self.label_smoothing
        )
        return error + 0.5 * self.pull * logits.amax(-1).square().mean()


def check_logits(logits: Tensor, target: Tensor) -> None:
    """Refuse logits that are not of every time step, and targets that do not fit them.

    Raises:
        ValueError: Logits averaged over time, a target of another shape, or (on the CPU, where to
            look costs nothing) labels of classes that the logits do not have.
        TypeError: Labels that are not int64.
    """
    if logits.dim() != 3:
        raise ValueError(
            f"logits have shape {list(logits.shape)}; losses take every time step, "
            "[T, N, classes] (a single step: logits.unsqueeze(0))"
        )
    if 0 in logits.shape:
        raise ValueError(f"logits have shape {list(logits.shape)}: no step, sample or class")
    _, samples, classes = logits.shape
    soft = target.is_floating_point()
    expected = [samples, classes] if soft else [samples]
    if list(target.shape) != expected:
        raise ValueError(
            f"target has shape {list(target.shape)}, logits {list(logits.shape)}; expected labels "
            f"[{samples}] (int64) or probabilities [{samples}, {classes}]"
        )
    if not soft and target.dtype != torch.int64:
        raise TypeError(f"labels are {target.dtype}; expected torch.int64 (labels.long())")
    if not soft and target.is_cpu and is_seen_by_nobody(target):
        check_labels(target, classes)
