"""The fused CPU kernels: compiled once per kind of neuron by numba, cached on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheobase.ops.scan.kernel_source import BLOCK, Variant, backward_source, forward_source
from rheobase.ops.scan.layout import Vector, compute_dtype, flat, like_rows, rows_like, vector
from rheobase.ops.scan.spec import ScanSpec
from rheobase.ops.threads import run_chunks
from rheobase.ops.translate import load_module

__all__ = ["DTYPES", "backward", "forward"]

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

# A fixed number of chunks, whatever the threads: sums come out the same on any machine.
_CHUNKS = 16

Value = float | Tensor


def forward(
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes ``[T, ...]``, last membrane ``[...]``, tapped membranes ``[T, ...]``.

    The last membrane is an empty tensor unless ``keep``, the tapped ones unless ``tap``.

    ``x`` has dense rows (`dense_rows`); ``u`` is the first membrane (None: ``rest``); ``values``
    are in the order of ``spec.names``.
    """
    compute = compute_dtype(x)
    arguments, kinds, _ = _prepare(values, x, compute, wanted=())
    kernel = _forward_kernel(_variant(spec, x, kinds, tap))
    steps, size = x.shape[0], x[0].numel()
    spikes = like_rows(x)
    last = like_rows(x[:1], compute)[0] if keep else x.new_empty(0, dtype=compute)
    membranes = like_rows(x, compute) if tap else x.new_empty(0, dtype=compute)
    first, first_step = _first(u, rest, x, compute)
    data, x_step = flat(x)
    chunks, chunk = _chunks(size)
    shared = (_array(data), x_step, _array(flat(spikes)[0]), first, first_step,
              _array(_line(last)), _array(_line(membranes)), steps, size, chunk)  # fmt: skip
    traffic = x.element_size() * size * (2 * steps)
    run_chunks(lambda a, b: kernel(*shared, a, b, *arguments), chunks, traffic)
    return spikes, last, membranes


def backward(
    g: Tensor,
    g_tap: Tensor,
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    wanted: Sequence[int],
) -> list[Tensor]:
    """The gradient of ``x`` and of the coefficients whose indices are ``wanted``, in that order.

    ``g`` and ``g_tap`` are the gradients of spikes and tapped membranes, in any layout.
    """
    compute = compute_dtype(x)
    arguments, kinds, vectors = _prepare(values, x, compute, wanted)
    kernel = _backward_kernel(_variant(spec, x, kinds, tap))
    steps, size = x.shape[0], x[0].numel()
    gx = like_rows(x)
    first, first_step = _first(u, rest, x, compute)
    data, x_step = flat(x)
    g_data, g_step = flat(rows_like(g, x))
    tapped = _contiguous_rows(g_tap, x) if tap else g_tap
    chunks, chunk = _chunks(size)
    sums = [torch.zeros(chunks, _extent(vectors[i]), dtype=torch.float64) for i in wanted]
    shared = (_array(g_data), g_step, _array(_line(tapped)), _array(data), x_step, first,
              first_step, _array(_line(gx)), *(s.numpy() for s in sums), steps, size,
              chunk)  # fmt: skip
    traffic = x.element_size() * size * (3 * steps)
    run_chunks(lambda a, b: kernel(*shared, a, b, *arguments), chunks, traffic)
    gradients = []
    for i, total in zip(wanted, sums, strict=True):
        value, laid = values[i], vectors[i]
        assert isinstance(value, Tensor)
        total = total.sum(0)
        if isinstance(laid, Vector):
            gradients.append(laid.restore(total, value))
        else:
            gradients.append(total.reshape(value.shape).to(value.dtype))
    return [gx, *gradients]


@cache
def _forward_kernel(variant: Variant) -> Callable[..., None]:
    kernel: Callable[..., None] = load_module("scan_forward", forward_source(variant)).forward
    return kernel


@cache
def _backward_kernel(variant: Variant) -> Callable[..., None]:
    kernel: Callable[..., None] = load_module("scan_backward", backward_source(variant)).backward
    return kernel


def _variant(spec: ScanSpec, x: Tensor, kinds: str, tap: str) -> Variant:
    """The kernel for this neuron and input: as many steps a sweep as divide T, up to four.

    Coefficients may vary over time, which one buffer a sweep cannot hold: those go step by step.
    """
    unroll = 1 if "v" in kinds.lower() else math.gcd(x.shape[0], 4)
    return Variant(spec, DTYPES[x.dtype], kinds, tap, unroll)


def _prepare(
    values: Sequence[Value], x: Tensor, compute: torch.dtype, wanted: Sequence[int]
) -> tuple[list[Any], str, list[Vector | None]]:
    """The kernels' arguments for the coefficients, their kinds, and the vectors' layouts."""
    number = np.float64 if compute == torch.float64 else np.float32
    arguments: list[Any] = []
    kinds, vectors = "", list[Vector | None]()
    for i, value in enumerate(values):
        laid = None
        if isinstance(value, Tensor) and value.numel() > 1:
            laid = vector(value, x, compute)
        if laid is None:
            arguments.append(number(float(value)))
        else:
            arguments += [laid.values.numpy(), laid.count, laid.inner, laid.step]
        kind = "s" if laid is None else "v"
        kinds += kind.upper() if i in wanted else kind
        vectors.append(laid)
    return arguments, kinds, vectors


def _extent(laid: Vector | None) -> int:
    return 1 if laid is None else laid.values.numel()


def _first(u: Tensor | None, rest: float, x: Tensor, compute: torch.dtype) -> tuple[Any, int]:
    """The first membrane as an array and a stride: one number for all (0), or one each (1)."""
    if u is None:
        return _array(torch.tensor([rest], dtype=compute)), 0
    return _array(_line(rows_like(u.to(compute).unsqueeze(0), x[:1])[0])), 1


def _contiguous_rows(value: Tensor, x: Tensor) -> Tensor:
    """``value`` in the dense order of ``x``, with no gap from one step to the next."""
    value = rows_like(value, x)
    return value if flat(value)[1] == x[0].numel() else like_rows(x, value.dtype).copy_(value)


def _line(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))


def _array(line: Tensor) -> Any:
    return (line.view(torch.int16) if line.dtype == torch.bfloat16 else line).numpy()


def _chunks(size: int) -> tuple[int, int]:
    """How many chunks, and of how many columns: whole blocks, the same for every thread count."""
    chunk = max(1, math.ceil(size / (_CHUNKS * BLOCK))) * BLOCK
    return math.ceil(size / chunk), chunk
