"""Max pooling of spikes by a gate: the spikes of the unit that has sent most so far."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.stateful import Stateful

__all__ = ["GatedMaxPool", "make_gate"]


class GatedMaxPool(Replacement, Stateful):
    """Passes on, in every window, the spikes of the unit with the largest sum of spikes so far.

    Source: Rueckauer et al. 2017, 2.2.5, as in the released code's default.

    Args:
        pool: the max pooling of the ANN.
    """

    conventions = ("mean", "sum")

    def __init__(self, pool: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) -> None:
        super().__init__()
        self.pool = type(pool)(
            pool.kernel_size, pool.stride, pool.padding, pool.dilation,
            return_indices=True, ceil_mode=pool.ceil_mode,
        )  # fmt: skip

    def forward(self, x: Tensor, *rest: Any, steps: int, **named: Any) -> Tensor:
        """``[T * N, C, ...]`` to ``[T * N, C, ...]``; the pooling's own arguments are known."""
        sums = unfolded(x, steps).cumsum(0)
        if self.carried is not None:
            sums = sums + self.carried
        self.carry(sums[-1])
        best, places = self.pool(folded(sums))
        return x.flatten(2).gather(2, places.flatten(2)).view_as(best)


def make_gate(traced: Traced, node: fx.Node, recipe: Recipe, steps: int) -> Replacement | None:
    """The gate for a max pooling node; None for one that it does not fit (adaptive pooling)."""
    module = traced.owner(node)
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
        return GatedMaxPool(module)
    axes = str(getattr(node.target, "__name__", "")).removeprefix("max_pool")[:1]
    kinds: dict[str, Any] = {"1": nn.MaxPool1d, "2": nn.MaxPool2d, "3": nn.MaxPool3d}
    if axes not in kinds:
        return None
    return GatedMaxPool(kinds[axes](*node.args[1:], **dict(node.kwargs)))
