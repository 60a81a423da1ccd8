"""Attention over time, channels and space (MA-SNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase._numbers import Size
from rheobase.layers._checks import check_sequence, check_steps
from rheobase.stateful import Stateful

__all__ = ["MultiDimensionalAttention"]

KINDS = ("TCSA", "TCA", "TSA", "CSA", "TA", "CA", "SA")


class MultiDimensionalAttention(Stateful):
    r"""Multi-dimensional attention: scores over time, then channels, then space.

    Each score multiplies the current; a ReLU ends it. Scores of time and channels are
    :math:`\sigma(\mathrm{MLP}(\mathrm{mean}) + \mathrm{MLP}(\max))`, pooled over everything else
    but N, with one MLP for both; that of space is :math:`\sigma` of a convolution of mean and
    maximum over T and C. As every score is pooled over T, it is not causal and cannot stream.

    Args:
        kind: which scores, in this order: "TCSA", "TCA", "TSA", "CSA", "TA", "CA" or "SA".
        steps: T; needed for a kind with T, which is then tied to it.
        channels: number of channels; needed for a kind with C.
        t_ratio: the MLP over time has ``steps // t_ratio`` hidden units.
        c_ratio: the MLP over channels has ``channels // c_ratio`` hidden units.
        kernel_size: of the convolution, odd (the paper's are 3 and 7).

    Raises:
        ValueError: an unknown kind, a ratio that leaves no hidden unit, or an even kernel; an
            input of another T or number of channels, or without pixels.

    Source: Yao et al. 2023 (Attention SNN), arXiv 2209.13929, eq. 7 to 16.

    >>> MultiDimensionalAttention("CSA", channels=8, c_ratio=4)(torch.rand(4, 2, 8, 5, 5)).shape
    torch.Size([4, 2, 8, 5, 5])
    """

    causal = False

    def __init__(
        self,
        kind: str,
        *,
        steps: Size | None = None,
        channels: Size | None = None,
        t_ratio: Size = 16,
        c_ratio: Size = 16,
        kernel_size: Size = 3,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(unknown_name("kind of attention", str(kind), KINDS))
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is an odd number of pixels, got {kernel_size}")
        self.kind = kind
        self.steps = _needed("steps", steps, kind) if "T" in kind else None
        self.channels = _needed("channels", channels, kind) if "C" in kind else None
        self.time = None if self.steps is None else _PoolScore(self.steps, t_ratio)
        self.channel = None if self.channels is None else _PoolScore(self.channels, c_ratio)
        self.space = None
        if "S" in kind:
            self.space = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Current ``[T, N, C, H, W]`` to the same shape, without its negative part."""
        check_sequence(self, x, self.channels)
        if x.dim() != 5:
            raise ValueError(
                f"MultiDimensionalAttention takes [T, N, C, H, W], got shape {list(x.shape)}; "
                "single numbers [T, N, C] become x[..., None, None]"
            )
        if self.steps is not None:
            check_steps(self, x.shape[0], self.steps)
        if self.time is not None:
            scores = self.time(x.transpose(0, 1)).T
            x = x * scores[..., None, None, None]
        if self.channel is not None:
            x = x * self.channel(x.permute(1, 2, 0, 3, 4))[..., None, None]
        if self.space is not None:
            pixels = x.transpose(0, 1).flatten(1, 2)
            pooled = torch.stack([pixels.mean(1), pixels.max(1).values], 1)
            x = x * self.space(pooled).sigmoid().unsqueeze(0)
        return x.relu()

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"kind={self.kind!r}"


class _PoolScore(nn.Module):
    """Scores ``[N, D]`` of axis 1 of ``[N, D, ...]``, from its mean and maximum."""

    def __init__(self, size: int, ratio: int) -> None:
        super().__init__()
        hidden = size // ratio
        if hidden < 1:
            raise ValueError(f"a ratio of {ratio} leaves nothing of {size}; lower it")
        self.squeeze = nn.Linear(size, hidden, bias=False)
        self.excite = nn.Linear(hidden, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        mean, largest = (
            self.excite(self.squeeze(v).relu()) for v in (flat.mean(2), flat.max(2)[0])
        )
        return (mean + largest).sigmoid()  # type: ignore[no-any-return]


def _needed(name: str, value: int | None, kind: str) -> int:
    if value is None:
        raise ValueError(f"attention {kind!r} needs {name}=...")
    return value
