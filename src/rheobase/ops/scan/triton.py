"""The fused GPU kernels: compiled once per kind of neuron by Triton.

The generated kernels import Triton, this module does so only to say what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rheobase.ops.scan.in_chunks import chunks_of, join, settle, split
from rheobase.ops.scan.kernel_source import Variant
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
from rheobase.ops.scan.triton_source import backward_source, forward_source
from rheobase.ops.translate import load_module
from rheobase.ops.triton_launch import THREADS, launch

__all__ = ["DTYPES", "backward", "forward"]

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "float32",
    torch.float16: "float32",
}
"""The dtype of the arithmetic for each dtype of input."""

# The most steps of a segment, whose membranes are all in registers on the way back.
_SEGMENT = 8
# So many programs keep a large GPU busy; with fewer columns each takes less.
_ENOUGH_PROGRAMS = 1024
_MOST_TURNS = 64

Value = float | Tensor
Source = Callable[[Variant], str]


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
    are in the order of ``spec.names``. ``as_bytes``: spikes come as uint8. ``marked``: with marks,
    which make `backward` faster.

    Raises:
        ValueError: ``x`` is not on a GPU.
    """
    work = _Work(x, u, rest, spec, values, tap)
    chunks = chunks_of(x, values)
    if chunks > 1:
        in_time = _forward_in_chunks(work, chunks, as_bytes)
        if in_time is not None:
            return in_time
    spikes, membranes = work.outputs(as_bytes)
    last = work.state() if keep else None
    marks = work.marks() if marked else None
    _run(work, spikes, last, membranes, marks)
    return Outputs(spikes, last, membranes, marks)


class _Work(NamedTuple):
    """A neuron and what it runs on, as `forward` and `backward` are given them."""

    x: Tensor
    u: Tensor | None
    rest: float
    spec: ScanSpec
    values: Sequence[Value]
    tap: str

    @property
    def axis(self) -> int:
        """Of the columns in a state: a filtered neuron's has a membrane and a current."""
        return 1 if self.spec.filtered else 0

    def state(self) -> Tensor:
        """Room for a state."""
        return like_state(self.x, self.spec.filtered)

    def outputs(self, as_bytes: bool) -> tuple[Tensor, Tensor | None]:
        """Room for spikes, and for membranes if they are tapped."""
        spikes = like_rows(self.x, torch.uint8 if as_bytes else None)
        return spikes, like_rows(self.x, compute_dtype(self.x)) if self.tap else None

    def marks(self) -> Tensor | None:
        """Room for the states before each segment but the first; None where there is but one."""
        count = -(-self.x.shape[0] // _segment(self.x.shape[0])) - 1
        if not count:
            return None
        states = 2 if self.spec.filtered else 1
        return self.x.new_empty(count * states, self.x[0].numel(), dtype=compute_dtype(self.x))


def _forward_in_chunks(whole: _Work, chunks: int, as_bytes: bool) -> Outputs | None:
    """The same of a sequence cut into chunks (`rheobase.ops.scan.in_chunks`)."""
    work = whole._replace(x=split(whole.x, chunks))
    spikes, membranes = work.outputs(as_bytes)
    ends = work.state()

    def run(starts: Tensor) -> Tensor:
        _run(work._replace(u=starts), spikes, ends, membranes, None)
        return ends

    if _settled_starts(work, run) is None:
        return None
    all_spikes, all_membranes = whole.outputs(as_bytes)
    if membranes is not None and all_membranes is not None:
        join(membranes, all_membranes)
    last = whole.state().copy_(ends.select(work.axis, -1))
    return Outputs(join(spikes, all_spikes), last, all_membranes)


def _settled_starts(work: _Work, run: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The states before each chunk; the first has that of the sequence, ``work.u``."""
    starts = work.state().fill_(work.rest)
    if work.spec.filtered:
        starts[1] = 0.0
    if work.u is not None:
        starts.select(work.axis, 0).copy_(work.u)

    def follow(ends: Tensor) -> Tensor:
        first, others = starts.narrow(work.axis, 0, 1), ends.shape[work.axis] - 1
        return torch.cat([first, ends.narrow(work.axis, 0, others)], work.axis)

    return settle(run, starts, follow)


def _run(
    work: _Work,
    spikes: Tensor | None,
    last: Tensor | None,
    membranes: Tensor | None,
    marks: Tensor | None,
) -> None:
    """Fill those outputs that there are."""
    x = work.x
    coefficients, kinds, _ = _coefficients(work, wanted=())
    kernel, block = _planned(work, kinds, forward_source)
    data, x_step = flat(x)
    launch(kernel, x, block, -(-x[0].numel() // block), x=data, x_step=x_step, spikes=spikes,
           first=_first(work), start=float(work.rest), last=last, tap=membranes, marks=marks,
           **coefficients)  # fmt: skip


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
    marks: Tensor | None = None,
) -> list[Tensor]:
    """The gradient of ``x`` and of the coefficients whose indices are ``wanted``, in that order.

    ``g`` and ``g_tap`` are the gradients of spikes and tapped membranes, in any layout (None: 0).
    ``summed``: give the gradient of ``x`` as ``[1, ...]``, its sum over time. ``marks``: from
    `forward`; without them they are made once more.

    Raises:
        ValueError: ``x`` is not on a GPU.
    """
    work = _Work(x, u, rest, spec, values, tap)
    chunks = 1 if summed else chunks_of(x, values)
    if chunks > 1:
        in_time = _backward_in_chunks(work, chunks, g, g_tap, wanted)
        if in_time is not None:
            return in_time
    if marks is None and (marks := work.marks()) is not None:
        _run(work._replace(tap=""), None, None, None, marks)
    return _run_back(work, g, g_tap, wanted, marks, summed=summed)


def _backward_in_chunks(
    whole: _Work, chunks: int, g: Tensor | None, g_tap: Tensor | None, wanted: Sequence[int]
) -> list[Tensor] | None:
    """The same of a sequence cut into chunks: their starts, then the gradients at their ends."""
    work = whole._replace(x=split(whole.x, chunks))
    g, g_tap = (None if v is None else split(v, chunks) for v in (g, g_tap))
    marks, ends, g_first = work.marks(), work.state(), work.state()

    def forward(starts: Tensor) -> Tensor:
        _run(work._replace(u=starts, tap=""), None, ends, None, marks)
        return ends

    starts = _settled_starts(work, forward)
    if starts is None:
        return None
    gradients: list[Tensor] = []

    def back(g_last: Tensor) -> Tensor:
        started = work._replace(u=starts)
        gradients[:] = _run_back(started, g, g_tap, wanted, marks, g_last, g_first)
        return g_first

    def follow(g_first: Tensor) -> Tensor:
        others = g_first.narrow(work.axis, 1, chunks - 1)
        return torch.cat([others, torch.zeros_like(g_first.narrow(work.axis, 0, 1))], work.axis)

    if settle(back, torch.zeros_like(g_first), follow) is None:
        return None
    gx, *others = gradients
    return [join(gx, like_rows(whole.x)), *others]


def _run_back(
    work: _Work,
    g: Tensor | None,
    g_tap: Tensor | None,
    wanted: Sequence[int],
    marks: Tensor | None,
    g_last: Tensor | None = None,
    g_first: Tensor | None = None,
    summed: bool = False,
) -> list[Tensor]:
    """`backward` in one pass; ``g_last`` is the gradient of the last state, ``g_first`` is filled
    with that of the first."""
    x, tap = work.x, work.tap
    coefficients, kinds, vectors = _coefficients(work, wanted)
    kernel, block = _planned(work, kinds, backward_source, summed)
    gx = like_rows(x[:1] if summed else x)
    turns = _turns(x, block, [laid for laid in vectors if laid is not None], bool(wanted))
    sums = [_sums(vectors[i], x, turns) for i in wanted]
    data, x_step = flat(x)
    g_data, g_step = flat(torch.zeros_like(x) if g is None else rows_like(g, x))
    if tap and g_tap is None:
        g_tap = torch.zeros_like(x, dtype=compute_dtype(x))
    g_tap_data, g_tap_step = flat(rows_like(g_tap, x)) if g_tap is not None and tap else (x, 0)
    outputs = {f"{work.spec.names[i]}_grad": s for i, s in zip(wanted, sums, strict=True)}
    launch(kernel, x, block, turns.programs, period=turns.period,
           turns=turns.blocks, g=g_data, g_step=g_step, g_tap=g_tap_data,
           g_tap_step=g_tap_step, x=data, x_step=x_step, first=_first(work),
           start=float(work.rest), zero=0.0, marks=marks, g_last=g_last, g_first=g_first, gx=gx,
           **outputs, **coefficients)  # fmt: skip
    gradients = []
    for i, buffer in zip(wanted, sums, strict=True):
        value = work.values[i]
        assert isinstance(value, Tensor)
        gradients.append(_gradient(buffer, vectors[i], value))
    return [gx, *gradients]


@cache
def _segment(steps: int) -> int:
    """How many steps a segment has; the whole sequence may be one.

    Of the lengths that cut the sequence into the fewest segments, or one more, one is taken that
    leaves no rest, if there is one.
    """
    if steps <= _SEGMENT:
        return steps
    fewest = -(-steps // _SEGMENT)
    shortest = -(-steps // fewest)
    return next((n for n in range(_SEGMENT, _SEGMENT // 2, -1) if steps % n == 0), shortest)


def _planned(work: _Work, kinds: str, source: Source, summed: bool = False) -> tuple[Any, int]:
    """The kernel, and how many columns one of its programs takes."""
    x = work.x
    return _plan(
        source, work.spec, DTYPES[x.dtype], kinds, work.tap, summed, x.shape[0], x[0].numel()
    )


@lru_cache(maxsize=4096)
def _plan(
    source: Source, spec: ScanSpec, dtype: str, kinds: str, tap: str, summed: bool, steps: int,
    columns: int,
) -> tuple[Any, int]:  # fmt: skip
    segment = _segment(steps)
    unroll, rest = (0, steps) if segment == steps else (segment, steps % segment)
    variant = Variant(spec, dtype, kinds, tap, unroll, rest, summed=summed)
    return _kernel(source, variant), _block(columns, variant)


@cache
def _kernel(source: Source, variant: Variant) -> Any:
    name = source.__name__.removesuffix("_source")
    return getattr(load_module(f"scan_triton_{name}", source(variant)), name)


def _block(size: int, variant: Variant) -> int:
    """Columns of one program: the more for each thread, the fewer registers a column takes."""
    held = max(variant.unroll, variant.rest) * (2 if variant.needs_before else 1)
    few = held > 16 or (variant.wanted and (held > 8 or variant.unroll))
    columns = (2 if few else 4) * THREADS
    while columns > THREADS and size < _ENOUGH_PROGRAMS * columns:
        columns //= 2
    return columns


def _coefficients(
    work: _Work, wanted: Sequence[int]
) -> tuple[dict[str, Any], str, list[Vector | None]]:
    """The kernels' arguments for the coefficients, their kinds, and the vectors' layouts.

    A number in a tensor is passed as it lies ("p"): reading it here would wait for the GPU.
    """
    x, arguments = work.x, dict[str, Any]()
    kinds, vectors = "", list[Vector | None]()
    for i, (name, value) in enumerate(zip(work.spec.names, work.values, strict=True)):
        laid = None
        if not isinstance(value, Tensor):
            kind = "s"
            arguments[name] = float(value)
        elif value.numel() == 1:
            kind = "p"
            arguments[f"{name}_ptr"] = value.to(x.device)
        else:
            kind, laid = "v", vector(value, x, compute_dtype(x))
            arguments |= {
                f"{name}_ptr": laid.values,
                f"{name}_count": laid.count,
                f"{name}_inner": laid.inner,
                f"{name}_timed": laid.step != 0,
            }
        kinds += kind.upper() if i in wanted else kind
        vectors.append(laid)
    return arguments, kinds, vectors


def _first(work: _Work) -> Tensor | None:
    """The first membranes in the dense order of ``x``; of a filtered neuron its currents too."""
    if work.u is None:
        return None
    if work.spec.filtered:
        return work.state().copy_(work.u)
    return rows_like(work.u.expand(work.x.shape[1:]).unsqueeze(0), work.x[:1])


class _Turns(NamedTuple):
    """How the backward pass cuts its columns: ``blocks`` to a program, one ``period`` apart."""

    period: int
    blocks: int
    shares: int
    programs: int


def _turns(x: Tensor, block: int, vectors: Sequence[Vector], wanted: bool) -> _Turns:
    """As many turns as leave enough programs, where there are gradients to be summed."""
    size = x[0].numel()
    period = max((laid.count * laid.inner for laid in vectors), default=size)
    if not wanted or any(period % (laid.count * laid.inner) for laid in vectors):
        period = size
    while period < block and size % (2 * period) == 0:
        period *= 2
    blocks, periods = -(-period // block), size // period
    count = max(1, min(_MOST_TURNS, blocks * periods // _ENOUGH_PROGRAMS)) if wanted else 1
    count = min(count, periods)
    shares = -(-periods // count)
    return _Turns(period, count, shares, blocks * shares)


def _sums(laid: Vector | None, x: Tensor, turns: _Turns) -> Tensor:
    """Room for a coefficient's gradient.

    Every entry is written by one program alone, so the result does not depend on their order.
    """
    if laid is None:
        return x.new_empty(turns.programs, dtype=compute_dtype(x))
    if laid.step:
        return x.new_empty(x.shape[0], x[0].numel(), dtype=compute_dtype(x))
    return x.new_empty(1, turns.shares * turns.period, dtype=compute_dtype(x))


def _gradient(sums: Tensor, laid: Vector | None, like: Tensor) -> Tensor:
    """The gradient in the shape of the coefficient ``like``."""
    if laid is None:
        return sums.sum(dtype=torch.float64).reshape(like.shape).to(like.device, like.dtype)
    by_place = sums.view(len(sums), -1, laid.count, laid.inner).sum((1, 3))
    if laid.order is None:
        return by_place.to(like.dtype).view(like.shape)
    return laid.restore(by_place.flatten(), like)
