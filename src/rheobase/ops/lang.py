"""The little language in which neurons and surrogates are written.

A neuron is three scalar functions (charge, fire, reset) and a surrogate is one. They are plain
Python over ``+ - * /``, comparisons and the names of this module. Called on tensors they are the
reference, differentiated by autograd. The CPU and GPU backends read the same source, bind the same
names to ``math`` or ``triton.language``, and compile it (`rheobase.ops.translate`).

>>> import torch
>>> where(torch.tensor([True, False]), torch.tensor([1.0, 2.0]), 0.0)
tensor([1., 0.])
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "abs",
    "atan",
    "cos",
    "erf",
    "exp",
    "floor",
    "indicator",
    "log",
    "maximum",
    "minimum",
    "pi",
    "round",
    "sign",
    "sin",
    "tanh",
    "where",
]

pi = math.pi

abs = torch.abs
atan = torch.atan
cos = torch.cos
erf = torch.erf
exp = torch.exp
floor = torch.floor
log = torch.log
round = torch.round  # half to even, in every backend
sign = torch.sign
sin = torch.sin
tanh = torch.tanh


def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """``a`` where the condition holds, else ``b``; at least one of them is a tensor."""
    return torch.where(condition, a, b)


def indicator(condition: Tensor, like: Tensor) -> Tensor:
    """1 where the condition holds, else 0, in the dtype of ``like``."""
    return condition.to(like.dtype)


def minimum(a: Tensor, b: float | Tensor) -> Tensor:
    """The smaller of ``a`` and ``b``; ``a`` is a tensor."""
    return torch.minimum(a, b) if isinstance(b, Tensor) else torch.clamp(a, max=b)


def maximum(a: Tensor, b: float | Tensor) -> Tensor:
    """The larger of ``a`` and ``b``; ``a`` is a tensor."""
    return torch.maximum(a, b) if isinstance(b, Tensor) else torch.clamp(a, min=b)
