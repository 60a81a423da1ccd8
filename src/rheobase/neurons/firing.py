"""Spike firing approximation: integers in training, spikes at inference."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rheobase._numbers import Size, numbers_checked

__all__ = ["SpikeFiringApproximation", "spike_trains"]


@numbers_checked
class SpikeFiringApproximation(nn.Module):
    r"""A neuron that fires an integer, which stands for that many spikes: :math:`y = s / D` with

    .. math:: s = \mathrm{round}(\mathrm{clip}(x, 0, D))

    The gradient passes where :math:`0 \le x \le D`. It has no membrane and no memory; the D levels
    take the place of time steps. At inference :math:`s` is a train of D binary spikes
    (`spike_trains`), whose mean is :math:`y`.

    Source: Yao et al. 2025 (E-SpikeFormer), arXiv 2411.16061.

    Args:
        levels: D, the largest integer.
        halves: how halves are rounded, "even" or "up". The two released codes differ in it; that
            which rounds up passes no gradient at 0 and D themselves.

    Raises:
        ValueError: ``levels`` is below 1, or ``halves`` neither of the two.

    >>> SpikeFiringApproximation()(torch.tensor([-1.0, 0.4, 1.6, 9.0]))
    tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """

    def __init__(self, levels: Size = 4, *, halves: Literal["even", "up"] = "even") -> None:
        super().__init__()
        if halves not in ("even", "up"):
            raise ValueError(f'halves must be "even" or "up", got {halves!r}')
        self.levels = levels
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        """Multiples of 1/D between 0 and 1, same shape as ``x``."""
        smooth = clipped = x.clamp(0, self.levels)
        whole = clipped.round()
        if self.halves == "up":
            smooth = torch.where((x > 0) & (x < self.levels), x, 0.0)
            whole = (clipped + 0.5).floor()
        return (whole.detach() + (smooth - smooth.detach())) / self.levels

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"levels={self.levels}, halves={self.halves!r}"


def spike_trains(y: Tensor, levels: Size) -> Tensor:
    """The binary spikes ``[levels, ...]`` whose mean is ``y``.

    Raises:
        ValueError: ``y`` holds something else than multiples of 1/levels from 0 to 1.

    >>> spike_trains(torch.tensor([0.0, 0.5, 1.0]), 2)
    tensor([[0., 1., 1.],
            [0., 0., 1.]])
    """
    counts = y * levels
    whole = counts.round()
    if not torch.allclose(counts, whole) or counts.min() < 0 or counts.max() > levels:
        raise ValueError(f"these are no spikes: not all of them are multiples of 1/{levels}")
    steps = torch.arange(levels, dtype=y.dtype, device=y.device)
    return (whole > steps.view(-1, *[1] * y.dim())).to(y.dtype)
