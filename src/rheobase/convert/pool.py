"""Max pooling of spikes by a gate: the spikes of the unit that has sent most so far."""

from __future__ import annotations

import copy
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

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = copy.deepcopy(pool)
        self.pool.return_indices = True  # type: ignore[assignment]

    def forward(self, x: Tensor, *rest: Any, steps: int, **named: Any) -> Tensor:
        """``[T * N, C, ...]`` to ``[T * N, C, ...]``; the pooling's own arguments are known."""
        sums = unfolded(x, steps).cumsum(0)
        if self.carried is not None:
            sums = sums + self.carried
        self.carry(sums[-1])
        best, places = self.pool(folded(sums))
        return x.flatten(2).gather(2, places.flatten(2)).view_as(best)


def make_gate(traced: Traced, node: fx.Node, recipe: Recipe, steps: int) -> Replacement | None:
    """The gate for a max pooling node."""
    module = traced.owner(node)
    if module is None:
        module = _POOLS[str(getattr(node.target, "__name__", ""))](*node.args[1:], **node.kwargs)
    return GatedMaxPool(module)


_POOLS: dict[str, Any] = {
    f"{name}{axes}d": getattr(nn, f"{pool}{axes}d")
    for name, pool in (("max_pool", "MaxPool"), ("adaptive_max_pool", "AdaptiveMaxPool"))
    for axes in (1, 2, 3)
}
"""Names of functions -> the modules that do the same."""
