"""Spikes of size 1 given their size where something else than a weighted layer reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AddSpikes", "SizedSpikes"]


class _Sized(nn.Module):
    """Of a size in common, a number, or of one for each channel, a buffer ``[C, ...]``.

    Attributes:
        step: spikes that come as uint8 are multiples of it.
    """

    def __init__(self, size: Tensor) -> None:
        super().__init__()
        self.size: float | Tensor
        if size.numel() == 1:
            self.size = float(size)
        else:
            self.register_buffer("size", size.detach().clone())
        self.step = 1.0

    def _size_of(self, x: Tensor) -> float | Tensor:
        return self.size * self.step if x.dtype == torch.uint8 else self.size

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        size = f"{self.size:g}" if isinstance(self.size, float) else f"{list(self.size.shape)}"
        return f"size={size}" + ("" if self.step == 1.0 else f", step={self.step:g}")


class SizedSpikes(_Sized):
    """Spikes times their size.

    Args:
        size: one number, or what broadcasts to ``[C, ...]``.

    >>> SizedSpikes(torch.tensor(0.5))(torch.tensor([0.0, 1.0, 2.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, ...]``."""
        return x * self._size_of(x)


class AddSpikes(_Sized):
    """Sized spikes added to something: a residual connection.

    Args:
        size: see `SizedSpikes`.
        in_place: nobody else reads what they are added to.

    >>> AddSpikes(torch.tensor(0.5))(torch.tensor([0.25, 0.0]), torch.tensor([0.0, 1.0]))
    tensor([0.2500, 0.5000])
    """

    def __init__(self, size: Tensor, in_place: bool = False) -> None:
        super().__init__(size)
        self.in_place = in_place

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """``y + size * x``, both ``[N, C, ...]``."""
        size = self._size_of(x)
        alone = self.in_place and y.shape == x.shape and not torch.is_grad_enabled()
        if isinstance(size, Tensor):
            return y.add_(x * size) if alone else y + x * size
        return y.add_(x, alpha=size) if alone else y.add(x, alpha=size)
