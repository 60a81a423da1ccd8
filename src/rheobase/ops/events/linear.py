"""A linear layer that reads only the weights of inputs that are not 0, forward and backward.

Worth it where few are: on one core a quarter of the dense product's time at a density of 10 %. The
input is first compressed to places and values of what is not 0, which is also all that is kept for
the weight's gradient.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.ops.events.compressed import Events, compressed, takes_events
from rheobase.ops.events.kernel import event_kernel
from rheobase.ops.fits import fits
from rheobase.ops.native import Kernel, in_chunks
from rheobase.ops.once import once_differentiable
from rheobase.ops.threads import team_size

__all__ = ["event_linear", "rows_by_input", "weight_gradient"]

# Columns that are worth a pass over the events.
_COLUMNS = 64
# Parts of the rows whose sums are apart, at most: a fixed number, so that sums come out the same
# whatever the number of threads.
_PARTS = 4
# Of so many inputs one is taken to be active, where that must be guessed.
_ACTIVE = 8


def event_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, by_input: Tensor | None = None
) -> Tensor:
    """``F.linear(x, weight, bias)``, event by event where ``x`` has few values other than 0.

    The result is that of the dense product up to rounding (the sums run in another order), and
    exactly that wherever the sums are exact: for integers, and weights that are multiples of a
    power of two. Denser input (`MAX_DENSITY`; a single row may be as dense as it will), other
    devices and dtypes, and traced or transformed calls take the dense product.

    Args:
        x: ``[..., inputs]``.
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``.
        by_input: `rows_by_input` of the weight, where the caller has it.

    Returns:
        ``[..., outputs]``.

    >>> x = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    >>> event_linear(x, torch.arange(12.0).view(2, 6))
    tensor([[1., 7.]])
    """
    events = None
    if takes_events(x, weight) and fits(x, weight, bias=bias):
        if by_input is not None and x.numel() == x.shape[-1]:
            return _one_row(x, by_input, bias)
        events = compressed(x)
    if events is None:
        return F.linear(x, weight, bias)
    out: Tensor = _EventLinear.apply(x, weight, bias, by_input, events)  # type: ignore[no-untyped-call]
    return out


def rows_by_input(weight: Tensor) -> Tensor:
    """The weight with one row for each input, as the kernels read it."""
    return weight.detach().t().contiguous()


def weight_gradient(x: Tensor, g: Tensor) -> Tensor:
    """``g.t() @ x``, event by event where ``x`` has few values other than 0.

    Args:
        x: a linear layer's input ``[rows, inputs]``.
        g: the gradient of its output ``[rows, outputs]``.

    Returns:
        ``[outputs, inputs]``.
    """
    events = compressed(x) if takes_events(x, g) else None
    return g.t() @ x if events is None else _weight_gradient(events, g.contiguous(), x.shape[1])


def _one_row(x: Tensor, by_input: Tensor, bias: Tensor | None) -> Tensor:
    """The product of a single row, with the fewest operations around it; without gradients."""
    inputs, outputs = by_input.shape
    out = x.new_empty(*x.shape[:-1], outputs)
    start = x.new_zeros(outputs) if bias is None else bias
    # What it reads of the weights is not known beforehand.
    traffic = by_input.nbytes // _ACTIVE
    chunks, chunk = _in_columns(outputs, team_size(outputs, traffic))
    which = torch.empty(chunks * inputs, dtype=torch.int32)
    _line(x.dtype)(
        chunks, traffic, x.contiguous(), which, x.new_empty(chunks * inputs), by_input, start, out,
        inputs, outputs, chunk,
    )  # fmt: skip
    return out


class _EventLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, by_input, events):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight)
        ctx.events = events
        rows, outputs = events.counts.numel(), weight.shape[0]
        out = x.new_empty(*x.shape[:-1], outputs)
        start = weight.new_zeros(outputs) if bias is None else bias.contiguous()
        matrix = rows_by_input(weight) if by_input is None else by_input
        chunks, chunk = in_chunks(rows)
        _gather(x.dtype)(
            chunks, x.nbytes + out.nbytes, *events.arrays, matrix, start, out, outputs, rows, chunk
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        flat = g.reshape(-1, g.shape[-1]).contiguous()
        gx = g @ weight if ctx.needs_input_grad[0] else None
        g_weight = None
        if ctx.needs_input_grad[1]:
            g_weight = _weight_gradient(ctx.events, flat, weight.shape[1])
        return gx, g_weight, flat.sum(0) if ctx.needs_input_grad[2] else None, None, None


def _weight_gradient(events: Events, g: Tensor, inputs: int) -> Tensor:
    rows, outputs = g.shape
    # Where sums are small beside ``g``, each thread reads its own rows of it, else its own columns.
    parts = min(_PARTS, max(1, rows // (8 * inputs)))
    pieces, columns = _in_columns(outputs, -(-torch.get_num_threads() // parts))
    grad = g.new_zeros(parts, outputs * inputs)
    _scatter(g.dtype)(
        parts * pieces, 2 * g.nbytes, *events.arrays, g, grad, inputs, outputs, rows, parts, columns
    )
    by_piece = grad.sum(0).split(columns * inputs)  # type: ignore[no-untyped-call]
    return torch.cat([piece.view(inputs, -1).t() for piece in by_piece])


def _in_columns(outputs: int, threads: int) -> tuple[int, int]:
    """How many chunks to cut the columns into, one a thread, and of how many columns."""
    chunk = max(_COLUMNS, -(-outputs // threads))
    return -(-outputs // chunk), chunk


@cache
def _gather(dtype: torch.dtype) -> Kernel:
    arrays = ("which", "values", "starts", "counts", "matrix", "bias", "out")
    return event_kernel("gather", dtype, arrays, ("outputs", "rows", "chunk"))


@cache
def _line(dtype: torch.dtype) -> Kernel:
    arrays = ("x", "which", "values", "matrix", "bias", "out")
    return event_kernel("line", dtype, arrays, ("inputs", "outputs", "chunk"))


@cache
def _scatter(dtype: torch.dtype) -> Kernel:
    arrays = ("which", "values", "starts", "counts", "g", "grad")
    return event_kernel("scatter", dtype, arrays, ("inputs", "outputs", "rows", "parts", "columns"))
