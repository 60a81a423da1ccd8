"""Weights rounded to 8 bits, each output with a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BLOCKS", "quantised"]

BLOCKS = (64, 128)
"""How many weights the event-driven kernel adds at once; its rows are as many blocks."""

_LARGEST = 127


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of 255 multiples of a scale, which is a 127th of an output's largest weight.

    Args:
        weight: ``[O, ...]``.

    Returns:
        multiples ``[O, ...]`` int8 from -127 to 127, and scales ``[O]`` float32.

    >>> values, scale = quantised(torch.tensor([[1.27, -0.5], [0.0, 0.0]]))
    >>> values.tolist(), scale.tolist()
    ([[127, -50], [0, 0]], [0.009999999776482582, 1.0])
    """
    flat = weight.detach().flatten(1).float()
    scale = flat.abs().amax(1) / _LARGEST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    values = torch.round(flat / scale.unsqueeze(1)).to(torch.int8)
    return values.view(weight.shape), scale
