"""Spikes that stand for a rate, and are differentiated as that: one node, one pass each way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Learnt", "with_rate_gradient"]


class Learnt(NamedTuple):
    """A number that the rate is clipped to: where it is, and the rate's derivative by it there."""

    top: Tensor
    above: Tensor
    slope: float


def with_rate_gradient(
    spikes: Tensor,
    x: Tensor,
    inside: Tensor,
    slope: float = 1.0,
    shares: Tensor | None = None,
    learnt: Learnt | None = None,
) -> Tensor:
    """``spikes``, whose gradient is that of the mean of ``x`` over time, or its weighted mean.

    Args:
        spikes: ``[T, ...]``, without a gradient.
        x: the neuron's input ``[T, ...]``, which gets the gradient.
        inside: ``[...]``, where the mean has a gradient.
        slope: which.
        shares: of each step, ``[T]``; None: 1 / T.
        learnt: what gets the gradient elsewhere.

    >>> x = torch.tensor([[1.0, -1.0], [2.0, -2.0]], requires_grad=True)
    >>> with_rate_gradient(torch.ones(2, 2), x, x.mean(0) > 0.0).sum().backward()
    >>> x.grad.tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    top, above, by_top = (None, None, 0.0) if learnt is None else learnt
    represented: Tensor = _Represented.apply(  # type: ignore[no-untyped-call]
        x, top, spikes, inside, above, shares, (slope, by_top)
    )
    return represented


class _Represented(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        x, top, spikes, inside, above, shares, slopes
    ):
        return spikes.view_as(spikes)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        x, top, _, inside, above, shares, ctx.slopes = inputs
        ctx.steps, ctx.dtype = x.shape[0], None if top is None else top.dtype
        ctx.save_for_backward(inside, above, shares)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        inside, above, shares = ctx.saved_tensors
        by_input, by_top = ctx.slopes
        g = g.sum(0) if shares is None else torch.tensordot(shares, g, 1)
        gx = (g * inside * (by_input / ctx.steps)).expand(ctx.steps, *g.shape)
        g_top = None if above is None else ((g * above).sum() * by_top).to(ctx.dtype)
        return gx, g_top, None, None, None, None, None
