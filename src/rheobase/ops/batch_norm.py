"""Batch norm, but for its last step: a batch's statistics, differentiable without a tensor more.

The neuron scan applies the norm as gain and shift of its input. What is left is here: mean and
variance, and their gradient, one pass over memory each. Everything is by channel, axis 2 of
``[T, N, C, ...]``, in float64: what cancels between the terms of the gradient stays exact.

Source: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rheobase.ops.native import Kernel, in_chunks
from rheobase.ops.scan.layout import compute_dtype, flat, like_rows, rows_like

__all__ = ["batch_statistics"]

_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sequence itself, and mean and (biased) variance of each channel.

    Who goes on with the sequence given back, and not with ``x``, spares the backward pass a tensor:
    the gradient of the statistics is added to that of the sequence in place.

    Args:
        x: ``[T, N, C, ...]`` on the CPU, with dense rows (`dense_rows`).

    Returns:
        ``x``; two tensors ``[C]``, float64.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _Statistics.apply(x)  # type: ignore[no-untyped-call]
    return outputs


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        mean, variance = _mean_and_variance(x)
        ctx.save_for_backward(x, mean)
        return x.view_as(x), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, g, g_mean, g_variance):  # type: ignore[no-untyped-def]
        x, mean = ctx.saved_tensors
        scale = x.shape[2] / x.numel()
        slope = g_variance * (2.0 * scale)
        g = _without_gaps(g, x)
        _add_affine_(g, x, slope, g_mean * scale - slope * mean)
        return g


def _without_gaps(g: Tensor, x: Tensor) -> Tensor:
    """``g`` in the dense order of ``x``, as `_add_affine_` needs it."""
    g = rows_like(g, x)
    return g if flat(g)[1] == x[0].numel() else like_rows(x).copy_(g)


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    count, inner = _channels(x)
    steps, size = x.shape[0], x[0].numel()
    data, x_step = flat(x)
    origin = x[0, 0].reshape(count, -1)[:, 0].to(torch.float64, copy=True)
    chunks, chunk = in_chunks(size)
    sums = torch.zeros(chunks, 2, count, dtype=torch.float64)
    _statistics_kernel(x.dtype)(
        chunks, x.nbytes, data, x_step, origin, sums, steps, size, chunk, count, inner
    )
    total, square = sums.sum(0) / (steps * size // count)
    return origin + total, (square - total * total).clamp_(min=0.0)


def _add_affine_(g: Tensor, x: Tensor, slope: Tensor, offset: Tensor) -> None:
    """``g += slope * x + offset`` in place; ``slope`` and ``offset`` are ``[C]``."""
    count, inner = _channels(x)
    steps, size = x.shape[0], x[0].numel()
    data, x_step = flat(x)
    chunks, chunk = in_chunks(size)
    compute = compute_dtype(x)
    _add_affine_kernel(x.dtype)(
        chunks, 3 * x.nbytes, g, data, x_step, slope.to(compute), offset.to(compute), steps, size,
        chunk, count, inner,
    )  # fmt: skip


def _channels(x: Tensor) -> tuple[int, int]:
    """How many channels, and how far apart they lie in memory."""
    return x.shape[2], max(1, x.stride(2))


_LAYOUT = {"steps": "int64", "size": "int64", "chunk": "int64", "count": "int64", "inner": "int64"}


@cache
def _statistics_kernel(dtype: torch.dtype) -> Kernel:
    kind = _DTYPES[dtype]
    load = "bfloat16_to_float" if kind == "bfloat16" else "same"
    source = f"{_IMPORTS}\nkernel = make_statistics({load})\n"
    parameters = {"x": f"{kind}*", "x_step": "int64", "origin": "float64*", "sums": "float64*"}
    return Kernel("statistics", source, parameters | _LAYOUT)


@cache
def _add_affine_kernel(dtype: torch.dtype) -> Kernel:
    kind = _DTYPES[dtype]
    real = "float64*" if kind == "float64" else "float32*"
    convert = "bfloat16_to_float, float_to_bfloat16" if kind == "bfloat16" else "same, same"
    source = f"{_IMPORTS}\nkernel = make_add_affine({convert})\n"
    parameters = {"g": f"{kind}*", "x": f"{kind}*", "x_step": "int64", "slope": real,
                  "offset": real}  # fmt: skip
    return Kernel("add_affine", source, parameters | _LAYOUT)


_IMPORTS = """from rheobase.ops.batch_norm_kernels import make_add_affine, make_statistics, same
from rheobase.ops.numba_lang import bfloat16_to_float, float_to_bfloat16"""
