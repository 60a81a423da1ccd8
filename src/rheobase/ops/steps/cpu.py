"""A step's kernels on the CPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rheobase.ops.native import DTYPES, Kernel, in_chunks
from rheobase.ops.scan.layout import Outputs, flat, like_rows
from rheobase.ops.steps.kernel_source import (
    BLOCK,
    back_parameters,
    back_source,
    forward_parameters,
    forward_source,
)
from rheobase.ops.steps.trace import Program

__all__ = ["backward", "forward"]


def forward(program: Program, tap: str, x: Tensor, first: Tensor, marked: bool) -> Outputs:
    """Run ``x`` of dense rows from the states ``first``; the way back needs no marks."""
    last = first.clone()
    spikes, membranes = like_rows(x), like_rows(x) if tap else None
    (data, x_step), (sizes, chunks) = flat(x), _sizes(x)
    numbers = torch.tensor(program.numbers, dtype=x.dtype)
    _forward_kernel(program.text, tap, DTYPES[x.dtype])(
        chunks, 2 * spikes.nbytes, data, x_step, spikes, membranes, last, numbers, *sizes
    )
    return Outputs(spikes, last, membranes)


def backward(
    program: Program,
    tap: str,
    g: Tensor,
    g_tap: Tensor | None,
    x: Tensor,
    first: Tensor,
    marks: Tensor | None,
    g_state: Tensor,
) -> Tensor:
    """The gradient of ``x``; in ``g_state``, that of the last states becomes that of the first."""
    gx = like_rows(x)
    (data, x_step), (g_data, g_step), (sizes, chunks) = flat(x), flat(g), _sizes(x)
    numbers = torch.tensor(program.numbers, dtype=x.dtype)
    _back_kernel(program.text, tap, DTYPES[x.dtype])(
        chunks, 3 * gx.nbytes, g_data, g_step, data, x_step, g_tap, first, gx, g_state, numbers,
        *sizes,
    )  # fmt: skip
    return gx


def _sizes(x: Tensor) -> tuple[tuple[int, int, int], int]:
    """Steps, columns and columns of a chunk; and how many chunks."""
    size = x[0].numel()
    chunks, chunk = in_chunks(size, BLOCK)
    return (x.shape[0], size, chunk), chunks


@cache
def _forward_kernel(text: Program, tap: str, real: str) -> Kernel:
    return Kernel("steps_forward", forward_source(text, tap, real), forward_parameters(real))


@cache
def _back_kernel(text: Program, tap: str, real: str) -> Kernel:
    return Kernel("steps_back", back_source(text, tap, real), back_parameters(real))
