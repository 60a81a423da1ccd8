"""Dropout for sequences: what is dropped stays dropped at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DropoutOverTime"]


class DropoutOverTime(nn.Dropout):
    """Dropout with one mask for all steps of a sample; nothing happens in evaluation.

    A mask drawn anew at every step would let every connection through in most sequences.

    Args:
        p: probability that an element is dropped, at all steps.

    Source: Rathi and Roy 2020 (Diet-SNN), arXiv 2008.03658, section 3; Fang et al. 2021 (PLIF).

    >>> dropped = DropoutOverTime(0.5)(torch.ones(4, 2, 8))
    >>> torch.equal(dropped, dropped[:1].expand(4, 2, 8))
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[T, N, ...]`` to the same shape."""
        if not self.training or self.p == 0.0:
            return input
        return input * F.dropout(torch.ones_like(input[0]), self.p)
