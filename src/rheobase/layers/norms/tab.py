"""Temporal accumulated batch norm: step t is normalised by the steps up to t."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers.norms.base import SequenceNorm, affine_of

__all__ = ["TAB"]


class TAB(SequenceNorm):
    r"""Temporal accumulated batch norm: :math:`y_t = p_t^2\,(\gamma_t \hat x_t + \beta_t)`.

    The statistics of step t are those of steps 1 to t together (training costs T/2 batch norms);
    :math:`\gamma_t`, :math:`\beta_t` and the running statistics are of step t alone, and
    :math:`p_t`, first 1, enters squared to stay positive.

    Args:
        channels: number of channels of ``[T, N, C, ...]``.
        steps: T.
        eps: added to the variance.
        momentum: of the running statistics.

    Raises:
        ValueError: an input of another T (both are named).

    Source: Jiang et al. 2024 (ICLR), and the authors' code (HaiyanJiang/SNN-TAB).

    >>> TAB(3, steps=4)(torch.randn(4, 8, 3, 5, 5)).shape
    torch.Size([4, 8, 3, 5, 5])
    """

    def __init__(
        self, channels: Size, steps: Size, *, eps: Positive = 1e-5, momentum: Share = 0.1
    ) -> None:
        super().__init__(channels, steps)
        self.bn = nn.ModuleList(nn.BatchNorm1d(channels, eps, momentum) for _ in range(steps))
        self.p = nn.Parameter(torch.ones(steps))

    def normalise(self, x: Tensor, start: int) -> Tensor:
        """Every step by its own norm, which in training sees the steps before it too."""
        samples, last = x.shape[1], start + x.shape[0]
        if self.training:
            seen = [x[: t + 1].flatten(0, 1) for t in range(x.shape[0])]
        else:
            seen = list(x.unbind(0))
        y = [norm(s)[-samples:] for norm, s in zip(self.bn[start:last], seen, strict=True)]
        return torch.stack(y) * self.p[start:last].square().view(-1, 1, 1, 1)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every step, ``[T, C]``."""
        scales, shifts = zip(*(affine_of(norm) for norm in self.bn), strict=True)
        return torch.stack(scales), torch.stack(shifts)

    def gain(self) -> Tensor:
        """The gain of every step, ``[T]``."""
        return self.p.square()
