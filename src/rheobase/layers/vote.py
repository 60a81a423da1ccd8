"""Groups of output neurons that vote for a class."""

from __future__ import annotations

from torch import Tensor

__all__ = ["vote"]


def vote(x: Tensor, voters: int) -> Tensor:
    """The mean of every ``voters`` neighbouring neurons: ``[..., classes * voters]`` to classes.

    Source: Fang et al. 2021 (PLIF), arXiv 2007.05785, section 4.3 (there an average pooling).

    Raises:
        ValueError: the last axis is no multiple of ``voters``.

    >>> import torch
    >>> vote(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2)
    tensor([0.5000, 1.0000])
    """
    if x.shape[-1] % voters:
        raise ValueError(f"{x.shape[-1]} output neurons cannot vote in groups of {voters}")
    votes: Tensor = x.unflatten(-1, (-1, voters))  # type: ignore[no-untyped-call]
    return votes.mean(-1)
