"""Knowledge distillation: a teacher's logits and features as targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase._numbers import Positive, numbers_checked
from rheobase.train.losses.objective import outputs

__all__ = ["Distillation"]


@numbers_checked
class Distillation:
    r"""What a teacher knows, as a term of the loss: its logits, its features, or both.

    .. math:: \alpha\,\mathrm{KL}(p_T \,\|\, p_S) + \beta \sum_l \overline{(f_{S,l} - f_{T,l})^2}

    p are class probabilities at a temperature; a hard teacher's part is instead the cross-entropy
    of the class that it names (Touvron et al. 2021, arXiv 2012.12877, eq. 3). The student's logits
    and features are averaged over time, and so are the teacher's if it has time steps too. The
    teacher is any network for the same input; it is kept in evaluation mode and gets no gradient.

    Source: Xu et al. 2023 (KDSNN), arXiv 2304.05627. Its transformation of features is not
    included: paired layers must agree in shape.

    Args:
        teacher: Gives logits `[N, classes]` or `[T, N, classes]` for the student's input.
        alpha: Weight of the logits.
        temperature: Divides the logits of both.
        beta: Weight of the features.
        features: Student's layer -> teacher's layer, by module name, whose outputs are compared.
        hard: Whether the teacher's class is what is learnt.
        head: Student's layer whose output learns from the teacher's logits; empty for its logits.

    Raises:
        ValueError: A temperature that is not above 0; shapes of logits or features that differ.
        AttributeError: A name of `features`, or a `head`, that is no module.

    >>> student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> x = torch.randn(4, 5, 3)  # [T, N, 3]
    >>> term = Distillation(teacher)
    >>> with term.watching(student, x) as value:
    ...     logits = student(x)
    >>> value(logits).shape
    torch.Size([])
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        alpha: float = 1.0,
        temperature: Positive = 4.0,
        beta: float = 0.0,
        features: Mapping[str, str] | None = None,
        hard: bool = False,
        head: str = "",
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.alpha, self.temperature, self.beta = alpha, temperature, beta
        self.features = dict(features or {})
        self.hard, self.head = hard, head

    @contextmanager
    def watching(self, net: nn.Module, inputs: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """Within the block `net(inputs)` is called; what is yielded makes its logits the term."""
        with outputs(self.teacher, self.features.values()) as taught, torch.no_grad():
            target = self.teacher(inputs)
        with outputs(net, [*self.features, *([self.head] if self.head else [])]) as learnt:
            yield lambda logits: self._term(logits, target, learnt, taught)

    def _term(
        self, logits: Tensor, target: Tensor, learnt: dict[str, Tensor], taught: dict[str, Tensor]
    ) -> Tensor:
        spiking = target.dim() == 3
        wanted = target.mean(0) if spiking else target
        head = self.head
        student = _mean_over_time(learnt[head], logits, head) if head else logits.mean(0)
        loss = self.alpha * self._divergence(student, wanted)
        for ours, theirs in self.features.items():
            feature = _mean_over_time(learnt[ours], logits, ours)
            wanted = taught[theirs]
            if spiking:
                wanted = _mean_over_time(wanted, target, theirs)
            if feature.shape != wanted.shape:
                raise ValueError(
                    f"features of {ours!r} are {list(feature.shape)}, those of the teacher's "
                    f"{theirs!r} {list(wanted.shape)}; pair layers of one shape"
                )
            loss = loss + self.beta * F.mse_loss(feature, wanted)
        return loss

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(
                f"the teacher's logits are {list(teacher.shape)}, the student's "
                f"{list(student.shape)} ([N, classes], time averaged)"
            )
        if self.hard:
            return F.cross_entropy(student.float(), teacher.argmax(-1))
        ours, theirs = (F.log_softmax(v.float() / self.temperature, -1) for v in (student, teacher))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _mean_over_time(x: Tensor, logits: Tensor, name: str) -> Tensor:
    """The mean of ``[T, N, ...]``, or of ``[T * N, ...]`` (a layer called through over_time).

    A layer that is called on the mean gives ``[N, ...]``, which stays.
    """
    steps, samples = logits.shape[:2]
    if x.shape[:2] == (steps, samples):
        return x.mean(0)
    if x.shape[0] == samples:
        return x
    if x.shape[0] != steps * samples:
        raise ValueError(
            f"layer {name!r} gives {list(x.shape)}: no features of {steps} steps and {samples} "
            "samples, neither [T, N, ...], [T * N, ...] nor [N, ...]"
        )
    return x.unflatten(0, (steps, samples)).mean(0)  # type: ignore[no-untyped-call,no-any-return]
