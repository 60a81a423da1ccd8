"""All T steps of a traced neuron at once, as one node of the eager graph."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rheobase.ops.native import DTYPES, Kernel, in_chunks
from rheobase.ops.scan.layout import dense_rows, flat, like_rows, rows_like
from rheobase.ops.steps.kernel_source import (
    BLOCK,
    back_parameters,
    back_source,
    forward_parameters,
    forward_source,
)
from rheobase.ops.steps.trace import Program

__all__ = ["run_steps"]


def run_steps(
    program: Program, x: Tensor, state: Tensor, tap: str
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run a neuron.

    Args:
        program: its step.
        x: ``[T, N, ...]`` on the CPU, float32 or float64.
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
        last = first.clone()
        spikes, membranes = like_rows(x), like_rows(x) if tap else None
        numbers = torch.tensor(program.numbers, dtype=x.dtype)
        (data, x_step), (sizes, chunks) = flat(x), _sizes(x)
        _forward_kernel(_text(program), tap, DTYPES[x.dtype])(
            chunks, 2 * spikes.nbytes, data, x_step, spikes, membranes, last, numbers, *sizes
        )
        ctx.save_for_backward(x, first, numbers)
        ctx.constants = program, tap
        ctx.set_materialize_grads(False)
        return spikes, membranes, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_tap: Tensor | None, g_last: Tensor | None) -> Any:
        x, first, numbers = ctx.saved_tensors
        program, tap = ctx.constants
        g = rows_like(torch.zeros_like(x) if g is None else g, x)
        tapped = None
        if tap:
            tapped = like_rows(x).copy_(g_tap) if g_tap is not None else torch.zeros_like(x)
        gx = like_rows(x)
        g_state = torch.zeros_like(first) if g_last is None else _rows_of(g_last, x)
        (data, x_step), (g_data, g_step), (sizes, chunks) = flat(x), flat(g), _sizes(x)
        _back_kernel(_text(program), tap, DTYPES[x.dtype])(
            chunks, 3 * gx.nbytes, g_data, g_step, data, x_step, tapped, first, gx, g_state,
            numbers, *sizes,
        )  # fmt: skip
        return gx, g_state, None, None


def _rows_of(state: Tensor, x: Tensor) -> Tensor:
    """States in the dense order of a step of ``x``, one behind another."""
    rows = torch.empty_strided(
        state.shape, (x[0].numel(), *x.stride()[1:]), dtype=x.dtype, device=x.device
    )
    return rows.copy_(state)


def _sizes(x: Tensor) -> tuple[tuple[int, int, int], int]:
    """Steps, columns and columns of a chunk; and how many chunks."""
    size = x[0].numel()
    chunks, chunk = in_chunks(size, BLOCK)
    return (x.shape[0], size, chunk), chunks


def _text(program: Program) -> Program:
    """The program without its numbers, which kernels take as an argument."""
    return replace(program, numbers=())


@cache
def _forward_kernel(text: Program, tap: str, real: str) -> Kernel:
    return Kernel("steps_forward", forward_source(text, tap, real), forward_parameters(real))


@cache
def _back_kernel(text: Program, tap: str, real: str) -> Kernel:
    return Kernel("steps_back", back_source(text, tap, real), back_parameters(real))
