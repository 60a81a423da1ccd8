"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase._numbers import numbers_checked

__all__ = ["DropPath"]


@numbers_checked
class DropPath(nn.Module):
    """In training, silences the whole branch of an image, at all its steps, with a probability.

    Branches that stay are scaled up, so that the mean stays. Source: Huang et al. 2016, arXiv
    1603.09382.

    Args:
        p: the probability.

    >>> import torch
    >>> DropPath(0.5).eval()(torch.ones(4, 2, 3)).mean()
    tensor(1.)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"the probability of DropPath is in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, ...]`` to the same shape."""
        if not self.training or self.p == 0.0:
            return x
        kept = x.new_empty(1, x.shape[1], *[1] * (x.dim() - 2)).bernoulli_(1.0 - self.p)
        return x * (kept / (1.0 - self.p))

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"p={self.p}"
