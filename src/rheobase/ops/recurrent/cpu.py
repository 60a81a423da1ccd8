"""The recurrent scan's CPU kernels: compiled once per kind of neuron by numba, cached on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from rheobase.ops.native import Kernel, in_chunks
from rheobase.ops.recurrent.cell import Cell
from rheobase.ops.recurrent.kernel_source import (
    backward_parameters,
    backward_source,
    forward_parameters,
    forward_source,
)
from rheobase.ops.recurrent.rows import BLOCK
from rheobase.ops.scan.kernel_source import Variant
from rheobase.ops.scan.spec import ScanSpec

__all__ = ["backward", "forward"]

Value = float | Tensor


def forward(
    x: Tensor, weight: Tensor, state: Tensor, cell: Cell, values: Sequence[Value]
) -> tuple[Tensor, Tensor, Tensor]:
    """As `rheobase.ops.recurrent.analytic.forward`; reads only the rows of neurons that fired."""
    kernel = _forward_kernel(_variant(cell.spec, x.dtype, ()))
    spikes, currents, last = torch.empty_like(x), torch.empty_like(x), torch.empty_like(state)
    sizes, traffic = _sizes(x)
    kernel(
        sizes[-1], traffic, x, weight.t().contiguous(), state, spikes, currents, last,
        *sizes[:-1], *cell.numbers, _by_block(values, x),
    )  # fmt: skip
    return spikes, currents, last


def backward(
    g: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    state: Tensor,
    cell: Cell,
    values: Sequence[Value],
    wanted: Sequence[int],
) -> list[Tensor]:
    """As `rheobase.ops.recurrent.analytic.backward`."""
    kernel = _backward_kernel(_variant(cell.spec, currents.dtype, wanted))
    gx = torch.empty_like(currents)
    sizes, traffic = _sizes(currents)
    features, chunks = currents.shape[2], sizes[-1]
    sums = [torch.zeros(chunks, features, dtype=torch.float64) for _ in wanted]
    kernel(
        chunks, traffic, g.contiguous(), spikes, currents, weight, state, gx, *sums, *sizes[:-1],
        *cell.numbers, _by_block(values, currents),
    )  # fmt: skip
    totals = (total.sum(0) for total in sums)
    return [gx, *(_like(total, values[i]) for i, total in zip(wanted, totals, strict=True))]


@cache
def _forward_kernel(variant: Variant) -> Kernel:
    return Kernel("recurrent_forward", forward_source(variant), forward_parameters(variant))


@cache
def _backward_kernel(variant: Variant) -> Kernel:
    return Kernel("recurrent_backward", backward_source(variant), backward_parameters(variant))


def _variant(spec: ScanSpec, dtype: torch.dtype, wanted: Sequence[int]) -> Variant:
    kinds = "".join("V" if i in wanted else "v" for i in range(len(spec.names)))
    return Variant(spec, str(dtype).removeprefix("torch."), kinds, "")


def _sizes(x: Tensor) -> tuple[tuple[int, int, int, int, int], int]:
    """Steps, samples, features, samples in a chunk, chunks; and the work as bytes of traffic."""
    steps, samples, features = x.shape
    chunks, chunk = in_chunks(samples)
    # Each step of a sample reads rows of the weight: that, not the sequence, is the work.
    return (steps, samples, features, chunk, chunks), x.nbytes * features // 8


def _by_block(values: Sequence[Value], x: Tensor) -> Tensor:
    """Every coefficient as one value a feature: block by block, in each block name by name."""
    features = x.shape[2]
    blocks = -(-features // BLOCK)
    laid = x.new_zeros(len(values), blocks * BLOCK)
    for row, value in zip(laid, values, strict=True):
        row[:features] = value.reshape(-1) if isinstance(value, Tensor) else value
    return laid.view(len(values), blocks, BLOCK).transpose(0, 1).contiguous()


def _like(total: Tensor, value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return (total.sum() if value.numel() == 1 else total).reshape(value.shape).to(value.dtype)
