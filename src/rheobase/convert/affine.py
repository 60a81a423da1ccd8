"""Operations that add a constant, where values are sums over T: it enters once, at first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.stateful import Stateful

__all__ = ["AffineOnce", "ChannelAffine", "operation_of"]


class AffineOnce(Replacement, Stateful):
    """An affine operation whose other operands do not depend on the input: those enter once.

    Args:
        operation: what the node does, called with its arguments.
        operands: where in its arguments the sequences are: a place, or the place of a list and one
            in it.
    """

    conventions = ("sum",)

    def __init__(
        self, operation: Callable[..., Tensor], operands: tuple[tuple[int, ...], ...]
    ) -> None:
        super().__init__()
        self.operation = operation
        self.operands = operands

    def forward(self, *args: Any, steps: int, **kwargs: Any) -> Tensor:
        """The node's arguments, operands as ``[T * N, ...]``, to ``[T * N, ...]``."""
        y = unfolded(self.operation(*args, **kwargs), steps)
        constant = unfolded(self.operation(*self._zeroed(args), **kwargs), steps)
        later = torch.ones(steps, dtype=y.dtype, device=y.device)
        if self.carried is None:
            later[0] = 0.0
        self.carry(later.new_ones(()))
        return folded(y - constant * later.view(-1, *[1] * (y.dim() - 1)))

    def _zeroed(self, args: tuple[Any, ...]) -> list[Any]:
        given: list[Any] = [list(arg) if isinstance(arg, list | tuple) else arg for arg in args]
        for place, *inner in self.operands:
            if inner:
                given[place][inner[0]] = torch.zeros_like(given[place][inner[0]])
            else:
                given[place] = torch.zeros_like(given[place])
        return given


class ChannelAffine(nn.Module):
    """What a batch norm does in evaluation: a factor and a bias for each channel."""

    conversion_kind = "weighted"

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = norm.weight * scale
        bias = -norm.running_mean * scale
        if norm.bias is not None:
            bias = norm.bias + bias
        self.weight = nn.Parameter(scale.detach().clone())
        self.bias: nn.Parameter | None = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]`` to the same."""
        shape = (-1, *[1] * (x.dim() - 2))
        y = x * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)


def operation_of(traced: Traced, node: fx.Node) -> Callable[..., Tensor]:
    """What a node does, called with its arguments."""
    module = traced.owner(node)
    if module is not None:
        return copy.deepcopy(module)
    if node.op == "call_method":
        return _Method(str(node.target))
    assert callable(node.target)
    return node.target


class _Method(nn.Module):
    """A method of its first argument."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The method's result."""
        y: Tensor = getattr(x, self.name)(*args, **kwargs)
        return y
