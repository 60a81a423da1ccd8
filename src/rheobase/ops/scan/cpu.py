"""The fused CPU kernels: compiled once per kind of neuron by numba, cached on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from rheobase.ops.native import DTYPES, Argument, Kernel, imported_kernel, in_chunks
from rheobase.ops.scan.kernel_backward import backward_source
from rheobase.ops.scan.kernel_forward import forward_source
from rheobase.ops.scan.kernel_source import BLOCK, Variant
from rheobase.ops.scan.layout import (
    Outputs,
    Vector,
    compute_dtype,
    flat,
    like_rows,
    like_state,
    rows_like,
    vector,
)
from rheobase.ops.scan.spec import ScanSpec

__all__ = ["backward", "forward", "prepared"]

Value = float | Tensor

# So many columns with the same coefficients are worth a loop of their own.
_STRETCH = 64


def forward(
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    keep: bool,
    as_bytes: bool = False,
    marked: bool = False,
) -> Outputs:
    """Run the neuron; see `Outputs`.

    ``x`` has dense rows (`dense_rows`); ``u`` is the first membrane (None: ``rest``); ``values``
    are in the order of ``spec.names``. ``as_bytes``: spikes come as uint8. ``marked``
    is for other backends: here the way back needs no marks.
    """
    compute = compute_dtype(x)
    coefficients, kinds, vectors = _prepare(values, x, compute, wanted=())
    plan = _forward_plan(
        x.shape, x.stride(), x.dtype, spec, kinds, _are_stretched(vectors), tap, as_bytes
    )
    spikes = like_rows(x, torch.uint8 if as_bytes else None)
    last = like_state(x, spec.filtered) if keep else None
    membranes = like_rows(x, compute) if tap else None
    first, first_step = _first(u, rest, x, spec)
    plan.kernel(
        plan.chunks, 2 * plan.traffic, (x.data_ptr(), plan.reach), plan.x_step, spikes,
        first, first_step, last, membranes, plan.steps, plan.size, plan.chunk, *coefficients,
    )  # fmt: skip
    return Outputs(spikes, last, membranes)


def prepared(
    x: Tensor, rest: float, spec: ScanSpec, values: Sequence[Value], as_bytes: bool = False
) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """`forward` of single steps that lie as ``x`` ``[1, ...]`` does, the rest settled beforehand.

    The state is moved in place. At a few thousand columns, what is settled here takes several times
    as long as the kernel.
    """
    compute = compute_dtype(x)
    coefficients, kinds, vectors = _prepare(values, x, compute, wanted=())
    shape, strides, dtype = x.shape, x.stride(), torch.uint8 if as_bytes else x.dtype
    kernel, _, size, _, _, traffic, chunks, chunk = _forward_plan(
        shape, strides, x.dtype, spec, kinds, _are_stretched(vectors), "", as_bytes
    )
    start, states = _constant(rest, compute), like_state(x, spec.filtered).stride()

    def step(x: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor]:
        spikes = torch.empty_strided(shape, strides, dtype=dtype)
        first, first_step, last = start, 0, u
        if u is None or u.stride() != states or u.dtype != compute:
            last = like_state(x, spec.filtered)
            if u is not None:
                last.copy_(u)
        assert last is not None
        if u is not None:
            first, first_step = last, 1
        kernel(chunks, 2 * traffic, x, size, spikes, first, first_step, last, None, 1, size, chunk,
               *coefficients)  # fmt: skip
        return spikes, last

    return step


def backward(
    g: Tensor | None,
    g_tap: Tensor | None,
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    wanted: Sequence[int],
    summed: bool = False,
) -> list[Tensor]:
    """The gradient of ``x`` and of the coefficients whose indices are ``wanted``, in that order.

    ``g`` and ``g_tap`` are the gradients of spikes and tapped membranes, in any layout (None: 0).
    ``summed``: give the gradient of ``x`` as ``[1, ...]``, its sum over time.
    """
    compute = compute_dtype(x)
    coefficients, kinds, vectors = _prepare(values, x, compute, wanted)
    g_data, g_step = flat(torch.zeros_like(x) if g is None else rows_like(g, x))
    plan = _backward_plan(
        x.shape, x.stride(), g_step, x.dtype, spec, kinds, _are_stretched(vectors), tap, summed
    )
    gx = like_rows(x[:1] if summed else x)
    first, first_step = _first(u, rest, x, spec)
    tapped = _tapped(g_tap, x, compute) if tap else None
    outputs: list[Argument] = []
    if wanted:
        # A row of sums for each chunk, and in it a place for each coefficient.
        extents = [_extent(vectors[i]) for i in wanted]
        sums = torch.zeros(plan.chunks, sum(extents), dtype=torch.float64)
        begin, count = sums.data_ptr(), sums.numel()
        starts = accumulate(extents[:-1], initial=0)
        outputs = [*((begin + 8 * start, count - start) for start in starts), sums.shape[1]]
    plan.kernel(
        plan.chunks, 3 * plan.traffic, g_data, g_step, tapped, (x.data_ptr(), plan.reach),
        plan.x_step, first, first_step, gx, *outputs, plan.steps, plan.size, plan.chunk,
        *coefficients,
    )  # fmt: skip
    if not wanted:
        return [gx]
    return [gx, *_restored(sums, extents, [(values[i], vectors[i]) for i in wanted])]


def _restored(
    sums: Tensor, extents: Sequence[int], given: Sequence[tuple[Value, Vector | None]]
) -> Iterator[Tensor]:
    """The coefficients' gradients, each in the shape of its coefficient, from the chunks' sums."""
    dtypes = {value.dtype for value, _ in given if isinstance(value, Tensor)}
    # In their dtype all at once: each call takes as long as a thousand numbers.
    dtype = torch.float32 if dtypes == {torch.float32} else torch.float64
    totals = torch.empty(sums.shape[1], dtype=dtype)
    _adding(dtype)(1, sums.nbytes, sums, totals)
    for total, (value, laid) in zip(totals.split_with_sizes(extents), given, strict=True):
        assert isinstance(value, Tensor)
        if laid is None:
            yield total.reshape(value.shape).to(value.dtype)
        else:
            yield laid.restore(total, value)


@cache
def _adding(dtype: torch.dtype) -> Kernel:
    arrays = {"rows": "float64*", "totals": f"{DTYPES[dtype]}*"}
    return imported_kernel("scan.totals", "add_rows", arrays)


@cache
def _forward_kernel(variant: Variant) -> Kernel:
    return Kernel("scan_forward", forward_source(variant), variant.forward_parameters())


@cache
def _backward_kernel(variant: Variant) -> Kernel:
    return Kernel("scan_backward", backward_source(variant), variant.backward_parameters())


class _Plan(NamedTuple):
    """A kernel, and what it is called with besides tensors.

    Attributes:
        kernel: for this neuron and layout.
        steps: T.
        size: how many columns.
        x_step: from a column to itself a step later.
        reach: how many numbers lie from the input's first to its last.
        traffic: the bytes of a sequence.
        chunks: of columns.
        chunk: columns of a chunk.
    """

    kernel: Kernel
    steps: int
    size: int
    x_step: int
    reach: int
    traffic: int
    chunks: int
    chunk: int


# What follows is asked at every call, and answered from a few: found out anew each time, it takes
# several times as long as the kernel of a small layer.


@lru_cache(maxsize=4096)
def _forward_plan(
    shape: torch.Size,
    strides: tuple[int, ...],
    dtype: torch.dtype,
    spec: ScanSpec,
    kinds: str,
    stretched: bool,
    tap: str,
    as_bytes: bool,
) -> _Plan:
    size, x_step = _row(shape, strides)
    variant = Variant(
        spec, DTYPES[dtype], kinds, tap, _unroll(shape), dense=x_step == size, as_bytes=as_bytes,
        stretched=stretched,
    )  # fmt: skip
    return _plan(_forward_kernel(variant), shape, strides, dtype)


@lru_cache(maxsize=4096)
def _backward_plan(
    shape: torch.Size,
    strides: tuple[int, ...],
    g_step: int,
    dtype: torch.dtype,
    spec: ScanSpec,
    kinds: str,
    stretched: bool,
    tap: str,
    summed: bool,
) -> _Plan:
    size, x_step = _row(shape, strides)
    dense = g_step == size and x_step == (0 if summed else size)
    variant = Variant(
        spec, DTYPES[dtype], kinds, tap, _unroll(shape), dense=dense, summed=summed,
        stretched=stretched,
    )  # fmt: skip
    return _plan(_backward_kernel(variant), shape, strides, dtype)


def _plan(kernel: Kernel, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> _Plan:
    size, x_step = _row(shape, strides)
    steps = shape[0]
    reach, traffic = x_step * (steps - 1) + size, size * steps * dtype.itemsize
    return _Plan(kernel, steps, size, x_step, reach, traffic, *in_chunks(size, BLOCK))


def _row(shape: torch.Size, strides: tuple[int, ...]) -> tuple[int, int]:
    """How many columns a step has, and how far it is to the next."""
    size = shape[1:].numel()
    return size, strides[0] if shape[0] > 1 else size


def _unroll(shape: torch.Size) -> int:
    """As many steps a sweep as divide T, up to four."""
    return math.gcd(shape[0], 4)


def _are_stretched(vectors: Sequence[Vector | None]) -> bool:
    return all([laid is None or laid.inner >= _STRETCH for laid in vectors])


def _prepare(
    values: Sequence[Value], x: Tensor, compute: torch.dtype, wanted: Sequence[int]
) -> tuple[list[Value], str, list[Vector | None]]:
    """The kernels' arguments for the coefficients, their kinds, and the vectors' layouts."""
    if all([type(value) is float for value in values]):
        return list(values), "s" * len(values), []
    arguments: list[Value] = []
    kinds, vectors = "", list[Vector | None]()
    for i, value in enumerate(values):
        laid = None
        if isinstance(value, Tensor) and value.numel() > 1:
            laid = vector(value, x, compute)
        if laid is None:
            arguments.append(float(value))
        else:
            arguments += [laid.values, laid.count, laid.inner, laid.step]
        kind = "s" if laid is None else "t" if laid.step else "v"
        kinds += kind.upper() if i in wanted else kind
        vectors.append(laid)
    return arguments, kinds, vectors


def _extent(laid: Vector | None) -> int:
    return 1 if laid is None else laid.values.numel()


def _first(u: Tensor | None, rest: float, x: Tensor, spec: ScanSpec) -> tuple[Tensor, int]:
    """The first membrane and a stride: one number for all columns (0), or one each (1)."""
    compute = compute_dtype(x)
    if u is None:
        return _constant(rest, compute), 0
    if spec.filtered:
        return like_state(x, filtered=True).copy_(u), 1
    return rows_like(u.to(compute).unsqueeze(0), x[:1])[0], 1


@cache
def _constant(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([value], dtype=dtype)


def _tapped(g: Tensor | None, x: Tensor, compute: torch.dtype) -> Tensor:
    """``g`` in the dense order of ``x``, with no gap from one step to the next."""
    if g is None:
        return torch.zeros_like(x, dtype=compute)
    g = rows_like(g, x)
    return g if flat(g)[1] == x[0].numel() else like_rows(x, g.dtype).copy_(g)
