"""A softmax that spikes: every class fires with the probability that its membrane gives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from rheobase.convert.kinds import kind_of
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.stateful import Stateful

__all__ = ["SoftmaxSpikes", "make_softmax_spikes"]


class SoftmaxSpikes(Replacement, Stateful):
    """Neurons at the output that are never reset, and fire at random by the softmax of their
    membranes.

    Draws from PyTorch's global generator. Source: Rueckauer et al. 2017, 2.2.4, with one draw a
    step for each class, as in the released SNN toolbox.

    Args:
        dim: the axis of the classes, counted from the end.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, *_: Any, steps: int, **__: Any) -> Tensor:
        """Currents ``[T * N, ...]`` to spikes ``[T * N, ...]``."""
        membranes = unfolded(x, steps).cumsum(0)
        if self.carried is not None:
            membranes = membranes + self.carried
        self.carry(membranes[-1])
        likely = membranes.softmax(self.dim)
        return folded((torch.rand_like(likely) <= likely).to(x.dtype))


def make_softmax_spikes(
    traced: Traced, node: fx.Node, recipe: Recipe, steps: int
) -> SoftmaxSpikes | None:
    """For a softmax that is the network's output; None for one within it, or of unknown axis."""
    if any(user.op != "output" for user in node.users) or kind_of(traced, node) != "softmax":
        return None
    module = traced.owner(node)
    rest = [*node.args[1:], node.kwargs.get("dim")]
    dim = rest[0] if module is None else getattr(module, "dim", None)
    if not isinstance(dim, int):
        return None
    axes = len(node.meta["growth"].axes)
    return SoftmaxSpikes(dim if dim < 0 else dim - axes)
