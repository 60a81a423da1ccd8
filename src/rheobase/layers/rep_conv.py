"""The re-parameterisable convolution of the Meta-SpikeFormer's attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rheobase.layers.time import over_time

__all__ = ["RepConv"]


class RepConv(nn.Module):
    """1x1, 3x3 channel by channel and 1x1 convolution, three batch norms, then the neuron.

    Nothing nonlinear stands between them, so at inference they are one convolution. To make that
    exact at the border, the 3x3 convolution is padded with what the first batch norm makes of 0,
    by its running statistics, in training too.

    Source: Yao et al. 2024 (Meta-SpikeFormer), arXiv 2404.03663.

    Args:
        dim: number of channels.
        neuron: what comes last; `torch.nn.Identity` where none does.

    >>> import torch
    >>> from rheobase.neurons import LIF
    >>> RepConv(8, LIF())(torch.rand(4, 2, 8, 6, 6)).shape
    torch.Size([4, 2, 8, 6, 6])
    """

    one_group = True  # for FSDP2: the padding reads what belongs to the norm

    def __init__(self, dim: int, neuron: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, dim, 1, bias=False)
        self.first_norm: nn.Module = nn.BatchNorm2d(dim)
        self.depthwise = nn.Conv2d(dim, dim, 3, groups=dim, bias=False)
        self.second = nn.Conv2d(dim, dim, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(dim)
        self.norm = nn.BatchNorm2d(dim)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to what the neuron makes of the same shape."""
        y = over_time(
            x,
            self.first, self.first_norm, self._pad,
            self.depthwise, self.second, self.second_norm, self.norm,
        )  # fmt: skip
        out: Tensor = self.neuron(y)
        return out

    def _pad(self, y: Tensor) -> Tensor:
        border = 1.0 - F.pad(y.new_ones(y.shape[-2:]), [1] * 4)
        return F.pad(y, [1] * 4) + self._of_zero().view(-1, 1, 1) * border

    def _of_zero(self) -> Tensor:
        """What the first batch norm makes of 0."""
        norm = self.first_norm
        if not isinstance(norm, nn.BatchNorm2d):  # `rheobase.optimize` made it the bias before it
            assert self.first.bias is not None
            return self.first.bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
        return norm.bias.detach() - norm.running_mean * scale
