"""Functions of one variable as one hidden layer of ReLUs, so that spikes can compute them.

Source: Jiang et al. 2024 (STA), ICLR, which distils such networks by gradient descent; ours are
fitted in closed form, which is nearer for as many neurons.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["INVERSE_ROOT", "ReLUApproximator", "approximated_softmax"]


class ReLUApproximator(nn.Module):
    r"""A function between ``low`` and ``high`` as :math:`c + \sum_i g_i\,\mathrm{relu}(x - k_i)`.

    It is piecewise linear, and equal to the function at the knots, which lie denser where that
    bends more (with the square root of the second derivative, so that errors are alike). It begins
    at the flatter end, constant beyond; where that is ``high``, units are
    :math:`\mathrm{relu}(k_i - x)`. So gains are as small as slopes are where most values lie, and
    single spikes of a unit are not many times the function. Beyond the other end it goes on
    straight.

    Args:
        function: smooth, of tensors of any shape.
        low: where the range begins.
        high: where it ends.
        neurons: hidden units.
        spread: the knots' density follows the bend on this scale: "linear", or "log" for a range
            over several powers of ten.

    Raises:
        ValueError: the range is empty, or (log) does not lie above 0; or there are no neurons.

    >>> gelu = ReLUApproximator(torch.nn.functional.gelu, -6.0, 6.0, 32)
    >>> x = torch.linspace(-8.0, 8.0, 500)
    >>> bool((gelu(x) - torch.nn.functional.gelu(x)).abs().max() < 0.01)
    True
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        low: float,
        high: float,
        neurons: int,
        *,
        spread: str = "linear",
    ) -> None:
        super().__init__()
        if not low < high or neurons < 1 or (spread == "log" and low <= 0.0):
            raise ValueError(
                f"expected low < high (and low > 0 for spread='log') and at least one neuron, got "
                f"{low}, {high}, {neurons}"
            )
        places = _places(function, low, high, neurons + 1, spread)
        values = function(places)
        slopes = values.diff() / places.diff()
        self.sign = -1.0 if slopes[0].abs() > 2.0 * slopes[-1].abs() else 1.0
        if self.sign < 0.0:
            places, values, slopes = places.flip(0), values.flip(0), -slopes.flip(0)
        gains = torch.cat([slopes[:1], slopes.diff()])
        self.low, self.high = low, high
        dtype = torch.get_default_dtype()
        self.knots = nn.Buffer(places[:-1].to(dtype))
        self.gains = nn.Buffer(gains.to(dtype))
        self.offset = nn.Buffer(values[0].to(dtype))

    def hidden(self, x: Tensor) -> Tensor:
        """What charges the hidden units: ``[...]`` to ``[..., neurons]``."""
        return self.sign * (x.unsqueeze(-1) - self.knots.to(x.dtype))

    def read(self, h: Tensor) -> Tensor:
        """The hidden units' output ``[..., neurons]`` to ``[...]``."""
        return h @ self.gains.to(h.dtype) + self.offset.to(h.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return self.read(self.hidden(x).relu())

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{len(self.knots)} neurons from {self.low} to {self.high}"


def _places(
    function: Callable[[Tensor], Tensor], low: float, high: float, count: int, spread: str
) -> Tensor:
    """``count`` places from low to high, denser where the function bends more."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    fine = torch.linspace(0.0, 1.0, 20_001, dtype=torch.float64)
    if spread == "log":
        grid = ends.log()[0].lerp(ends.log()[1], fine).exp()
    else:
        grid = ends[0].lerp(ends[1], fine)
    step = grid.diff()
    slope = function(grid).diff() / step
    bend = (slope.diff() / (0.5 * (step[1:] + step[:-1]))).abs()
    density = bend.sqrt() * 0.5 * (step[1:] + step[:-1])
    density = density + 0.02 * density.mean()  # no part of the range goes without a knot
    share = torch.cat([density.new_zeros(1), density.cumsum(0)]) / density.sum()
    wanted = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    index = torch.searchsorted(share, wanted.clamp(max=share[-1])).clamp(max=len(grid) - 1)
    places = grid[index]
    places[0], places[-1] = low, high
    return torch.unique(places)  # type: ignore[no-any-return]


_EXP = ReLUApproximator(torch.exp, -20.0, 3.0, 32)
_INVERSE = ReLUApproximator(torch.reciprocal, 1e-2, 5e3, 64, spread="log")
INVERSE_ROOT = ReLUApproximator(torch.rsqrt, 1e-3, 1e2, 32, spread="log")


def approximated_softmax(x: Tensor) -> Tensor:
    """Softmax over the last axis by approximated exponential and inverse.

    As in STA, values are shifted so that the first column becomes 1, cut off at 3, and count as 0
    below -20; a sum of the result above 1.5 is divided out once more.
    """
    shifted = (x - x[..., :1] + 1.0).clamp(max=3.0)
    e = torch.where(shifted > -20.0, _EXP(shifted), 0.0)
    p = e * _INVERSE(e.sum(-1, keepdim=True))
    total = p.sum(-1, keepdim=True)
    return torch.where(total > 1.5, p * _INVERSE(total), p)
