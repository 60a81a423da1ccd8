"""One entry to the recurrent scan; the backend is chosen by where the tensors live.

A PyTorch custom operator, so that `torch.compile` and `torch.export` see one node with time not
unrolled. Under a `torch.func` transform or forward-mode differentiation, and for coefficients that
only autograd handles, the plain reference runs instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rheobase.ops.eager import is_transformed
from rheobase.ops.events import weight_gradient
from rheobase.ops.recurrent.cell import Cell
from rheobase.ops.recurrent.reference import recurrent_reference
from rheobase.ops.scan.spec import ScanSpec

__all__ = ["recurrent_scan"]

Coefficients = Mapping[str, float | Tensor]


def recurrent_scan(
    x: Tensor, weight: Tensor, state: Tensor, cell: Cell, coefficients: Coefficients
) -> tuple[Tensor, Tensor]:
    """Run a recurrent layer over a sequence; arguments and result as `recurrent_reference`.

    No gradient flows into the last state. Gradients are those of autograd through the unrolled
    steps, up to rounding; the weight's is one matrix product over all steps.
    """
    if _needs_reference(x, state, coefficients):
        return recurrent_reference(x, weight, state, cell, coefficients)
    values = list(coefficients.values())
    numbers = [0.0 if isinstance(v, Tensor) else float(v) for v in values]
    tensors = [v for v in values if isinstance(v, Tensor)]
    which = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
    spikes, _, last = _scan(
        x, weight, state, cell.spec.key, list(cell.numbers), " ".join(coefficients), numbers,
        tensors, which,
    )  # fmt: skip
    return spikes, last


def _needs_reference(x: Tensor, state: Tensor, coefficients: Coefficients) -> bool:
    if state.requires_grad:
        return True
    for name, value in coefficients.items():
        if not isinstance(value, Tensor):
            continue
        by_feature = value.numel() in (1, x.shape[2]) and value.shape[-1:] in ((), x.shape[2:])
        learnt_slope = name.startswith("surrogate_") and value.requires_grad
        if learnt_slope or not (by_feature or value.numel() == 1):
            return True
    if torch.compiler.is_compiling():
        return False
    if torch._C._len_torch_function_stack():  # somebody counts the products
        return True
    return is_transformed()


def _backend(x: Tensor) -> ModuleType:
    name = "cpu" if x.device.type == "cpu" else "analytic"
    return import_module(f"rheobase.ops.recurrent.{name}")


def _cell(spec: str, linear: Sequence[float]) -> Cell:
    return Cell(ScanSpec.from_key(spec), *linear)


def _ordered(
    cell: Cell,
    names: str,
    numbers: Sequence[float],
    tensors: Sequence[Tensor],
    which: Sequence[int],
) -> list[float | Tensor]:
    """The values in the order of ``spec.names``, which can't be read while a graph is traced."""
    values: list[float | Tensor] = list(numbers)
    for i, tensor in zip(which, tensors, strict=True):
        values[i] = tensor
    by_name = dict(zip(names.split(), values, strict=True))
    return [by_name[name] for name in cell.spec.names]


@torch.library.custom_op("rheobase::recurrent_scan", mutates_args=())
def _scan(
    x: Tensor,
    weight: Tensor,
    state: Tensor,
    spec: str,
    linear: Sequence[float],
    names: str,
    numbers: Sequence[float],
    tensors: Sequence[Tensor],
    which: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    cell = _cell(spec, linear)
    outputs: tuple[Tensor, Tensor, Tensor] = _backend(x).forward(
        x.contiguous(), weight.contiguous(), state.contiguous(), cell,
        _ordered(cell, names, numbers, tensors, which),
    )  # fmt: skip
    return outputs


@_scan.register_fake
def _(x, weight, state, spec, linear, names, numbers, tensors, which):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op("rheobase::recurrent_scan_backward", mutates_args=())
def _scan_backward(
    g: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    state: Tensor,
    spec: str,
    linear: Sequence[float],
    names: str,
    numbers: Sequence[float],
    tensors: Sequence[Tensor],
    which: Sequence[int],
    wanted: Sequence[int],
) -> list[Tensor]:
    cell, given = _cell(spec, linear), names.split()
    gradients: list[Tensor] = _backend(g).backward(
        g, spikes, currents, weight.contiguous(), state.contiguous(), cell,
        _ordered(cell, names, numbers, tensors, which),
        [cell.spec.names.index(given[i]) for i in wanted],
    )  # fmt: skip
    return gradients


@_scan_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    g, spikes, currents, weight, state, spec, linear, names, numbers, tensors, which, wanted
):
    by_index = dict(zip(which, tensors, strict=True))
    return [torch.empty_like(currents), *(torch.empty_like(by_index[i]) for i in wanted)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, weight, state, *ctx.constants, tensors, which = inputs
    spikes, currents, last = output
    ctx.save_for_backward(spikes, currents, weight, state, *tensors)
    ctx.which = which
    ctx.wanted = [i for i, v in zip(which, tensors, strict=True) if v.requires_grad]
    ctx.mark_non_differentiable(currents, last)
    # Else zeros as large as the sequence are written for what has no gradient.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, g: Tensor, g_currents: Tensor, g_last: Tensor) -> tuple[Any, ...]:
    spikes, currents, weight, state, *tensors = ctx.saved_tensors
    gx, *gradients = _scan_backward(
        g, spikes, currents, weight, state, *ctx.constants, tensors, ctx.which, ctx.wanted
    )
    g_weight = None
    if ctx.needs_input_grad[1]:
        # One product over all steps, each step's spikes those of the step before.
        g_weight = weight_gradient(spikes[:-1].flatten(0, 1), gx[1:].flatten(0, 1))
        g_weight = torch.addmm(g_weight, gx[0].t(), state[0])
    by_index = dict(zip(ctx.wanted, gradients, strict=True))
    # An empty list is a tree of its own, which the gradients must mirror.
    for_numbers: list[None] | None = None if ctx.constants[3] else []
    for_which: list[None] | None = None if ctx.which else []
    return (
        gx, g_weight, None, None, None, None,
        for_numbers, [by_index.get(i) for i in ctx.which], for_which,
    )  # fmt: skip


_scan.register_autograd(_gradients, setup_context=_save)
