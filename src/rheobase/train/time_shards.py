"""A sequence longer than one device's memory: its pieces on several processes, results the same.

Process k computes the k-th piece of the sequence. It starts from the states with which process
k - 1 ended, and in the backward pass hands their gradient back. Nothing is approximated: outputs
and gradients are those of one process with the whole sequence. The pieces of one sequence are
computed one after another, so what is gained for it is memory, not time; with several sequences on
their way (one call and one ``backward`` after another) all processes are busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rheobase.ops.scan import use_backend
from rheobase.stateful import Stateful, streaming

__all__ = ["sum_gradients", "time_sharded"]


def time_sharded(net: nn.Module, piece: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """This process's piece of ``net`` of the whole sequence.

    Each process of the group calls it with its piece, in the order of their ranks; then each calls
    ``backward`` once on a loss of its own piece, such that the losses add up to the whole's, and
    then `sum_gradients`. Neurons run step by step in PyTorch here, since gradients flow through the
    states at the pieces' ends.

    Args:
        net: a causal network, the same on every process.
        piece: ``[t, N, ...]``, of any number of steps.
        group: the processes; default: all.

    Returns:
        ``[t, N, ...]``, steps of what the whole sequence gives.

    Raises:
        ValueError: ``net`` cannot stream (see `rheobase.streaming`).
    """
    rank, last = dist.get_rank(group), dist.get_world_size(group) - 1
    with _open(net) as modules, use_backend("reference"):
        if rank > 0:
            _receive(modules, rank - 1, group)
        y: Tensor = net(piece)
        if rank < last:
            y = _send(modules, y, rank + 1, group)
    return y


def sum_gradients(net: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Add up what every process found for each parameter: the gradient of the whole sequence."""
    for parameter in net.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad, group=group)


@contextmanager
def _open(net: nn.Module) -> Iterator[dict[str, Stateful]]:
    """Streaming, but gradients flow through the states."""
    modules = {name: m for name, m in net.named_modules() if isinstance(m, Stateful)}
    with streaming(net):
        for module in modules.values():
            module._detaches = False
        try:
            yield modules
        finally:
            for module in modules.values():
                module._detaches = True


def _send(
    modules: dict[str, Stateful], y: Tensor, to: int, group: dist.ProcessGroup | None
) -> Tensor:
    states = {name: m._state for name, m in modules.items() if m._state is not None}
    about = [(name, state.shape, state.dtype) for name, state in states.items()]
    dist.send_object_list([about], group=group, group_dst=to)
    out: Tensor = _Send.apply(y, to, group, *states.values())  # type: ignore[no-untyped-call]
    return out


def _receive(modules: dict[str, Stateful], source: int, group: dist.ProcessGroup | None) -> None:
    box: list[Any] = [None]
    dist.recv_object_list(box, group=group, group_src=source)
    about: list[tuple[str, torch.Size, torch.dtype]] = box[0]
    device = next((p.device for m in modules.values() for p in m.parameters()), torch.device("cpu"))
    # Autograd goes back only into what asks for gradients.
    asks = torch.zeros((), requires_grad=torch.is_grad_enabled(), device=device)
    layouts = [(shape, dtype) for _, shape, dtype in about]
    states = _Receive.apply(asks, source, group, layouts)  # type: ignore[no-untyped-call]
    for (name, _, _), state in zip(about, states, strict=True):
        modules[name]._state = state


class _Send(torch.autograd.Function):
    """``y`` as it is; the states go to the next process, their gradients come back from it."""

    @staticmethod
    def forward(ctx, y, to, group, *states):  # type: ignore[no-untyped-def]
        ctx.to, ctx.group, ctx.like = to, group, [torch.empty_like(state) for state in states]
        for state in states:
            dist.send(state.contiguous(), group=group, group_dst=to)
        return y.view_as(y)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        gradients = []
        for like in ctx.like:
            if like.is_floating_point():
                dist.recv(like, group=ctx.group, group_src=ctx.to)
            gradients.append(like if like.is_floating_point() else None)
        return g, None, None, *gradients


class _Receive(torch.autograd.Function):
    """The states of the process before; their gradients go back to it."""

    @staticmethod
    def forward(ctx, asks, source, group, layouts):  # type: ignore[no-untyped-def]
        ctx.source, ctx.group = source, group
        states = [torch.empty(shape, dtype=dtype, device=asks.device) for shape, dtype in layouts]
        for state in states:
            dist.recv(state, group=group, group_src=source)
        ctx.mark_non_differentiable(*(s for s in states if not s.is_floating_point()))
        return tuple(states)

    @staticmethod
    def backward(ctx, *gradients):  # type: ignore[no-untyped-def]
        for g in gradients:
            if g is not None and g.is_floating_point():
                dist.send(g.contiguous(), group=ctx.group, group_dst=ctx.source)
        return None, None, None, None
