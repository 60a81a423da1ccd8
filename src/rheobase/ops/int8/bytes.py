"""Inputs as bytes: multiples of a step, from 0 to 255."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["grid_step", "to_bytes"]

_LARGEST = 255
_FINEST = 6


def grid_step(x: Tensor) -> float | None:
    """The coarsest of 1, 1/2, ..., 1/64 of which all of ``x`` are multiples 0 to 255; or None.

    Spikes and their counts are multiples of 1, averages of 2x2 spikes of 1/4.

    >>> grid_step(torch.tensor([0.0, 1.0, 3.0])), grid_step(torch.tensor([0.5, 0.25]))
    (1.0, 0.25)
    >>> grid_step(torch.tensor([0.3])) is None and grid_step(torch.tensor([-1.0])) is None
    True
    """
    if x.numel() == 0 or float(x.min()) < 0:
        return None
    for power in range(_FINEST + 1):
        multiples = x * 2.0**power
        if float(multiples.max()) > _LARGEST:
            return None
        if torch.equal(multiples, multiples.round()):
            return float(2.0**-power)
    return None


def to_bytes(x: Tensor, step: float) -> Tensor:
    """The nearest multiple of ``step`` from 0 to 255, as uint8; bytes themselves stay as they are.

    >>> to_bytes(torch.tensor([0.25, 0.5, -1.0]), 0.25)
    tensor([1, 2, 0], dtype=torch.uint8)
    """
    if x.dtype == torch.uint8:
        return x
    return torch.round(x / step).clamp_(0, _LARGEST).to(torch.uint8)
