"""Residual joins of spiking branches."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rheobase._errors import unknown_name
from rheobase.ops.packed import largest, mark

__all__ = ["SEW_JOINS", "sew_join"]

# What the three do to the bounds of two marked spike tensors.
_BOUNDS: dict[str, Callable[[int, int], int]] = {
    "ADD": lambda branch, identity: branch + identity,
    "AND": lambda branch, identity: branch * identity,
    "IAND": lambda branch, identity: identity,
}

SEW_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ADD": lambda branch, identity: branch + identity,
    "AND": lambda branch, identity: branch * identity,
    "IAND": lambda branch, identity: (1.0 - branch) * identity,
}


def sew_join(branch: Tensor, identity: Tensor, connect: str) -> Tensor:
    """The spike-element-wise join of a residual block: ADD, AND or IAND of two spike tensors.

    A silent branch makes ADD and IAND the identity, a branch that always fires makes AND so. ADD
    gives integers that grow with depth.

    Source: Fang et al. 2021 (SEW-ResNet), arXiv 2102.04159, table 1.

    Raises:
        ValueError: ``connect`` is none of the three.

    >>> import torch
    >>> sew_join(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), "IAND")
    tensor([1., 0.])
    """
    if connect not in SEW_JOINS:
        raise ValueError(unknown_name("SEW join", connect, SEW_JOINS))
    joined = SEW_JOINS[connect](branch, identity)
    of_branch, of_identity = largest(branch), largest(identity)
    if of_branch is None or of_identity is None:
        return joined
    return mark(joined, _BOUNDS[connect](of_branch, of_identity))
