"""A step's kernels on a GPU: compiled once per kind of neuron by Triton, when it is first run."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from rheobase.ops.scan.layout import Outputs, flat, like_rows
from rheobase.ops.steps.trace import Program
from rheobase.ops.steps.triton_source import SEGMENT, back_source, forward_source
from rheobase.ops.translate import load_module
from rheobase.ops.triton_launch import THREADS, launch

__all__ = ["backward", "forward"]

_BLOCK = 2 * THREADS


def forward(program: Program, tap: str, x: Tensor, first: Tensor, marked: bool) -> Outputs:
    """Run ``x`` of dense rows from the states ``first``; ``marked``: with marks, for `backward`.

    Raises:
        ValueError: ``x`` is not on a GPU.
    """
    last = torch.empty_like(first)
    spikes, membranes = like_rows(x), like_rows(x) if tap else None
    size = x[0].numel()
    marks = x.new_empty(-(-x.shape[0] // SEGMENT) * program.states, size) if marked else None
    data, x_step = flat(x)
    _launch(
        _kernel(forward_source, program.text, tap, x.dtype), program, x,
        x=data, x_step=x_step, spikes=spikes, tap=membranes, first=first, last=last, marks=marks,
    )  # fmt: skip
    return Outputs(spikes, last, membranes, marks)


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
    """The gradient of ``x``; in ``g_state``, that of the last states becomes that of the first.

    ``marks`` are `forward`'s.
    """
    gx = like_rows(x)
    kept = x.new_empty(min(SEGMENT, x.shape[0]) * program.states, x[0].numel())
    (data, x_step), (g_data, g_step) = flat(x), flat(g)
    _launch(
        _kernel(back_source, program.text, tap, x.dtype), program, x,
        g=g_data, g_step=g_step, g_tap=g_tap, x=data, x_step=x_step, marks=marks, kept=kept,
        g_state=g_state, gx=gx,
    )  # fmt: skip
    return gx


def _launch(kernel: Any, program: Program, like: Tensor, /, **arguments: Any) -> None:
    numbers = {f"c{i}": number for i, number in enumerate(program.numbers)}
    launch(kernel, like, _BLOCK, -(-like[0].numel() // _BLOCK), **arguments, **numbers)


@cache
def _kernel(source: Any, text: Program, tap: str, dtype: torch.dtype) -> Any:
    real = str(dtype).removeprefix("torch.")
    name = "forward" if source is forward_source else "backward"
    return getattr(load_module(f"steps_triton_{name}", source(text, tap, real)), name)
