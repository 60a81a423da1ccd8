"""Temporal effective batch norm: one batch norm over all steps, a learnt gain for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers.norms.base import SequenceNorm, affine_of

__all__ = ["TEBN"]


class TEBN(SequenceNorm):
    r"""Temporal effective batch norm: :math:`y_t = p_t\,(\gamma \hat x_t + \beta)`.

    Statistics are over T and N together; each step has one learnt gain :math:`p_t`, first 1.
    Folded into the layer before it, only the gains are left.

    Args:
        channels: number of channels of ``[T, N, C, ...]``.
        steps: T.
        eps: added to the variance.
        momentum: of the running statistics.

    Raises:
        ValueError: an input of another T (both are named).

    Source: Duan et al. 2022 (NeurIPS 35), eq. 11 to 13.

    >>> TEBN(3, steps=4)(torch.randn(4, 8, 3, 5, 5)).shape
    torch.Size([4, 8, 3, 5, 5])
    """

    def __init__(
        self, channels: Size, steps: Size, *, eps: Positive = 1e-5, momentum: Share = 0.1
    ) -> None:
        super().__init__(channels, steps)
        self.bn = nn.BatchNorm1d(channels, eps, momentum)
        self.p = nn.Parameter(torch.ones(steps))

    def normalise(self, x: Tensor, start: int) -> Tensor:
        """All steps by one norm, then each by its gain."""
        y: Tensor = self.bn(x.flatten(0, 1)).view(x.shape)
        return y * self.p[start : start + x.shape[0]].view(-1, 1, 1, 1)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift before the gains, ``[C]``."""
        return affine_of(self.bn)

    def gain(self) -> Tensor:
        """The gain of every step, ``[T]``."""
        return self.p
