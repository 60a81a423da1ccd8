"""Attention over time steps (TA-SNN)."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase._numbers import Share, Size
from rheobase.layers._checks import check_sequence, check_steps
from rheobase.stateful import Stateful

__all__ = ["TemporalAttention"]


class TemporalAttention(Stateful):
    r"""Temporal-wise attention: every step is multiplied by a score seen from all steps.

    .. math:: y_t = x_t\,d_t, \qquad d = \sigma(W_2\,\mathrm{relu}(W_1 \bar x + b_1) + b_2)

    :math:`\bar x` is the mean of each step over everything but T and N. Placed in front of a
    neuron. Not causal: it cannot stream.

    Args:
        steps: T.
        reduction: the hidden layer has ``steps // reduction`` units.
        drop_below: in evaluation a step whose score is below is dropped, any other kept whole (the
            paper's inference); None keeps the scores, as the authors' module does.

    Raises:
        ValueError: ``reduction`` is not in [1, steps]; an input of another T.

    Source: Yao et al. 2021 (TA-SNN), arXiv 2107.11711, eq. 5 to 8.

    >>> import torch
    >>> TemporalAttention(steps=6, reduction=3)(torch.rand(6, 2, 3, 5, 5)).shape
    torch.Size([6, 2, 3, 5, 5])
    """

    causal = False

    def __init__(
        self, steps: Size, reduction: Size = 16, *, drop_below: Share | None = None
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= steps:
            raise ValueError(f"reduction is from 1 to steps={steps}, got {reduction}")
        hidden = steps // reduction
        self.steps = steps
        self.drop_below = drop_below
        self.squeeze = nn.Linear(steps, hidden)
        self.excite = nn.Linear(hidden, steps)

    def scores(self, x: Tensor) -> Tensor:
        """The score of every step, ``[T, N]``."""
        mean = x.flatten(2).mean(2)
        scores: Tensor = self.excite(self.squeeze(mean.T).relu()).sigmoid().T
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Current ``[T, N, C, ...]`` to the same shape."""
        check_sequence(self, x)
        check_steps(self, x.shape[0], self.steps)
        scores = self.scores(x)
        if self.drop_below is not None and not self.training:
            scores = (scores >= self.drop_below).to(x.dtype)
        return x * scores.view(*scores.shape, *[1] * (x.dim() - 2))
