"""Ordinary layers and neurons one after another, each seeing what it understands of a sequence."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from rheobase.layers.time import over_time
from rheobase.stateful import Stateful

__all__ = ["TimeSequential"]

# Those in any number of dimensions: `nn.BatchNorm1d` would take the samples for channels.
_TIMELESS = (
    _ConvNd, nn.Linear, _NormBase, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveMaxPoolNd,
    _AdaptiveAvgPoolNd, nn.Flatten,
)  # fmt: skip


class TimeSequential(nn.Sequential):
    """`nn.Sequential` for ``[T, N, ...]``: layers of `torch.nn` step by step, others whole.

    Convolutions, linear layers, norms, pooling and `nn.Flatten` see every step, as in `over_time`,
    which also does a batch norm in the pass of the neuron behind it; neurons, and everything else,
    are called on the sequence.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> net = TimeSequential(nn.Conv2d(3, 8, 3), LIF(), nn.MaxPool2d(2), nn.Flatten())
    >>> net(torch.rand(4, 2, 3, 6, 6)).shape
    torch.Size([4, 2, 32])
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[T, N, ...]`` to the shape that the last layer gives it."""
        known: list[nn.Module] = []
        for module in self:
            if isinstance(module, (*_TIMELESS, Stateful)):
                known.append(module)
            else:
                input = module(over_time(input, *known))
                known = []
        return over_time(input, *known)
