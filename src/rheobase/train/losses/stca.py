"""A loss on when, not only whether, an output neuron crosses its threshold (STCA)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheobase.train.losses.readout import check_logits

__all__ = ["STCA"]


@dataclass(frozen=True)
class STCA:
    """Temporal loss: outputs are membranes, and errors are credited to single time steps.

    The output of the right class is to reach `v_threshold` in at least `count` steps, those of the
    others in none. Where steps are missing, the highest step below pays its distance to the
    threshold; where there are too many, the lowest step above pays what it exceeds. So the error
    reaches back from one moment, which may lie long before the end of the sample (delayed
    feedback).

    Reconstruction (Gu et al. 2019, IJCAI: STCA): the paper's text was not at hand; this is the
    aggregate-label loss of its authors' field, which fits its description. Uncertain are the
    distance (here linear) and the count.

    Attributes:
        v_threshold: What an output must reach to have fired.
        count: Firing steps wanted of the right class.

    >>> logits = torch.tensor([[[0.2, 0.0]], [[0.7, 1.5]]])  # [T, N, classes]
    >>> STCA()(logits, torch.tensor([0]))  # 1 - 0.7 is missing, 1.5 - 1 too much
    tensor(0.8000)
    """

    v_threshold: float = 1.0
    count: int = 1

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: `[T, N, classes]`.
            target: Labels `[N]` (int64).

        Raises:
            ValueError: Shapes that do not fit, or probabilities as target.
        """
        check_logits(logits, target)
        if target.is_floating_point():
            raise ValueError("STCA counts firing steps of one class: labels [N], no mixup")
        excess = logits - self.v_threshold
        fired = excess >= 0
        wanted = torch.zeros_like(fired[0], dtype=torch.int64)
        wanted.scatter_(1, target.unsqueeze(1), self.count)
        highest_below = excess.masked_fill(fired, -torch.inf).max(0).values
        lowest_above = excess.masked_fill(~fired, torch.inf).min(0).values
        fires = fired.sum(0)
        zero = torch.zeros_like(highest_below)
        missing = torch.where((fires < wanted) & highest_below.isfinite(), -highest_below, zero)
        too_much = torch.where(fires > wanted, lowest_above, zero) * (wanted == 0)
        return (missing + too_much).sum(1).mean()
