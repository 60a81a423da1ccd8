"""Gradients that kernels compute have no gradient of their own, and say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import function

__all__ = ["once_differentiable"]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass whose results raise where autograd asks for their gradient.

    PyTorch's own decorator lets them be constants where the gradient that comes in is one (of a
    sum, say): what they owe to weights and inputs is then missing in silence.
    """
    once = function.once_differentiable(backward)

    @wraps(backward)
    def raising(ctx: Any, *gradients: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            return once(ctx, *(g if g is None else _differentiable(g) for g in gradients))
        return backward(ctx, *gradients)

    return raising


def _differentiable(g: Tensor) -> Tensor:
    return g if g.requires_grad else g.detach().requires_grad_()
