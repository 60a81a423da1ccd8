"""All T steps of a traced neuron at once, as one node of the eager graph."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rheobase.ops.once import once_differentiable
from rheobase.ops.scan.layout import dense_rows, like_rows, rows_like
from rheobase.ops.steps.trace import Program

__all__ = ["run_steps"]


def run_steps(
    program: Program, x: Tensor, state: Tensor, tap: str
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run a neuron.

    Args:
        program: its step.
        x: ``[T, N, ...]`` on the CPU or a GPU, float32 or float64.
        state: the states before the first step ``[states, N, ...]``.
        tap: "h" or "v", the membranes to give as well, or "".

    Returns:
        Spikes and membranes ``[T, N, ...]`` (None without a tap), and the last states.
    """
    spikes, membranes, last = _Steps.apply(x, state, program, tap)  # type: ignore[no-untyped-call]
    return spikes, membranes, last


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, program: Program, tap: str) -> Any:
        x = dense_rows(x)
        first = _rows_of(state, x)
        marked = any(ctx.needs_input_grad)
        found = _kernels(x.device.type).forward(program, tap, x, first, marked)
        ctx.save_for_backward(x, first, found.marks)
        ctx.constants = program, tap
        ctx.set_materialize_grads(False)
        return found.spikes, found.membranes, found.last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_tap: Tensor | None, g_last: Tensor | None) -> Any:
        x, first, marks = ctx.saved_tensors
        program, tap = ctx.constants
        g = rows_like(torch.zeros_like(x) if g is None else g, x)
        tapped = None
        if tap:
            tapped = like_rows(x).copy_(g_tap) if g_tap is not None else torch.zeros_like(x)
        g_state = torch.zeros_like(first) if g_last is None else _rows_of(g_last, x)
        kernels = _kernels(x.device.type)
        gx = kernels.backward(program, tap, g, tapped, x, first, marks, g_state)
        return gx, g_state, None, None


@cache
def _kernels(device: str) -> Any:
    """The module of a device's kernels. They are told here, so that no other need be imported."""
    name = "cpu" if device == "cpu" else "triton"
    return import_module(f"rheobase.ops.steps.{name}")


def _rows_of(state: Tensor, x: Tensor) -> Tensor:
    """States in the dense order of a step of ``x``, one behind another."""
    rows = torch.empty_strided(
        state.shape, (x[0].numel(), *x.stride()[1:]), dtype=x.dtype, device=x.device
    )
    return rows.copy_(state)
