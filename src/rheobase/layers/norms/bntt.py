"""Batch norm through time: a batch norm of its own for every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers.norms.base import SequenceNorm, affine_of

__all__ = ["BNTT"]


class BNTT(SequenceNorm):
    r"""Batch norm through time: :math:`y_t = \gamma_t\,\hat x_t`, everything of step t its own.

    Mean, variance and :math:`\gamma` of every step are apart; there is no shift. Folded it keeps a
    scale and a shift for every step, and no single set of weights can hold them.

    Args:
        channels: number of channels of ``[T, N, C, ...]``.
        steps: T.
        eps: added to the variance.
        momentum: of the running statistics.

    Raises:
        ValueError: an input of another T (both are named).

    Source: Kim & Panda 2021, arXiv 2010.01729, eq. 6 and 7.

    >>> BNTT(3, steps=4)(torch.randn(4, 8, 3, 5, 5)).shape
    torch.Size([4, 8, 3, 5, 5])
    """

    def __init__(
        self, channels: Size, steps: Size, *, eps: Positive = 1e-4, momentum: Share = 0.1
    ) -> None:
        super().__init__(channels, steps)
        self.bn = nn.ModuleList(nn.BatchNorm1d(channels, eps, momentum) for _ in range(steps))
        for norm in self.bn:
            norm.register_parameter("bias", None)

    def normalise(self, x: Tensor, start: int) -> Tensor:
        """Every step by its own norm."""
        norms = self.bn[start : start + x.shape[0]]
        return torch.stack([norm(step) for norm, step in zip(norms, x.unbind(0), strict=True)])

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every step, ``[T, C]``."""
        scales, shifts = zip(*(affine_of(norm) for norm in self.bn), strict=True)
        return torch.stack(scales), torch.stack(shifts)
