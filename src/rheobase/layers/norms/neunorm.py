"""NeuNorm: spikes less a trace of what all channels fired."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rheobase._numbers import Share
from rheobase.layers._checks import check_sequence
from rheobase.stateful import Stateful

__all__ = ["NeuNorm"]


class NeuNorm(Stateful):
    r"""NeuNorm: spikes less the trace of their neighbours in all channels.

    .. math:: m_t = k\,m_{t-1} + \frac{1-k}{C^2} \sum_c s_{t,c}, \qquad y_t = s_t - w \odot m_t

    Placed behind a neuron. The same in training and evaluation; the trace streams.

    Args:
        shape: ``(C, H, W)`` of the spikes.
        k: decay of the trace.
        shared: one ``w`` for all channels, ``[1, H, W]``, instead of ``[C, H, W]``.

    Raises:
        ValueError: spikes of another shape; `fold`.

    Source: Wu et al. 2019 (AAAI 33), arXiv 1809.05793, eq. 7 and 8.

    >>> NeuNorm((3, 5, 5))(torch.ones(4, 2, 3, 5, 5)).shape
    torch.Size([4, 2, 3, 5, 5])
    """

    def __init__(
        self, shape: tuple[int, int, int], k: Share = 0.9, *, shared: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(shape, Sequence) or len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"NeuNorm takes (channels, height, width), none 0, got {shape}")
        self.shape = tuple(shape)
        self.k = k
        self.w = nn.Parameter(torch.empty(1 if shared else shape[0], *shape[1:]))
        nn.init.kaiming_uniform_(self.w, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, C, H, W]`` to real values of the same shape and dtype."""
        check_sequence(self, x, self.shape[0])
        if tuple(x.shape[2:]) != self.shape:
            raise ValueError(f"NeuNorm was made for {self.shape}, input is {tuple(x.shape[2:])}")
        share = (1.0 - self.k) / self.shape[0] ** 2
        sums = x.sum(2, keepdim=True)
        trace = torch.zeros_like(sums[0]) if self.carried is None else self.carried
        traces = []
        for total in sums.unbind(0):
            trace = self.k * trace + share * total
            traces.append(trace)
        self.carry(trace)
        return (x - self.w * torch.stack(traces)).to(x.dtype)

    def fold(self) -> None:
        """Never: NeuNorm has a memory, so it is no affine map.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "NeuNorm keeps a trace of past spikes and cannot be folded into weights or thresholds; "
            "inference runs it as it is"
        )

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"shape={self.shape}, k={self.k}, shared={self.w.shape[0] != self.shape[0]}"
