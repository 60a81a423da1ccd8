"""Batch norm, but for its last step: a batch's statistics, differentiable without a tensor more.

The neuron scan applies the norm as gain and shift of its input. What is left is here: mean and
variance, and their gradient, one pass over memory each. Everything is by channel, axis 2 of
``[T, N, C, ...]``, and added up in float64: what cancels between the terms of the gradient stays
exact. The GPU's kernels are in `rheobase.ops.batch_norm_triton`.

Source: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rheobase.ops.gpu import gpu_kernels
from rheobase.ops.native import DTYPES, Kernel, conversions, in_chunks
from rheobase.ops.once import once_differentiable
from rheobase.ops.scan.layout import compute_dtype, flat, like_rows, rows_like

__all__ = ["batch_gain_and_shift"]


def batch_gain_and_shift(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The sequence itself, and the gain and shift that make its batch norm of it.

    Who goes on with the sequence given back, and not with ``x``, spares the backward pass a tensor:
    the gradient of the statistics is added to that of the sequence in place.

    Args:
        x: ``[T, N, C, ...]`` with dense rows (`dense_rows`).
        weight: the norm's gain ``[C]``.
        bias: the norm's shift ``[C]``.
        eps: added to the variance.

    Returns:
        ``x``; gain and shift, which broadcast to ``x[0, 0]``; mean and (biased) variance ``[C]``,
        without gradient. On the CPU all but ``x`` are float64; on a GPU the mean is, and the
        others are of the dtype of the arithmetic.
    """
    outputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _GainAndShift.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, eps
    )
    return outputs


class _GainAndShift(torch.autograd.Function):
    """One node instead of a dozen: at small batches the graph costs as much as the passes."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        if x.is_cuda:
            mean, variance, inverse, gain, shift = gpu_kernels("batch_norm").statistics(
                x, weight, bias, eps, *_channels(x)
            )
        else:
            mean, variance = _mean_and_variance(x)
            inverse = (variance + eps).rsqrt_()
            gain = weight * inverse
            shift = torch.addcmul(bias.double(), mean, gain, value=-1.0)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.bias_dtype = bias.dtype
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        shape = (-1, *[1] * (x.dim() - 3))
        return x.view_as(x), gain.view(shape), shift.view(shape), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, g, g_gain, g_shift, g_mean, g_variance):  # type: ignore[no-untyped-def]
        x, weight, mean, inverse = ctx.saved_tensors
        g = _without_gaps(g, x)
        if x.is_cuda:
            kernels = gpu_kernels("batch_norm")
            slope, offset, g_weight, g_bias = kernels.gradients(
                x, g_gain, g_shift, weight, mean, inverse
            )
            kernels.add_affine_(g, x, slope, offset, *_channels(x))
            return g, g_weight, g_bias.to(ctx.bias_dtype), None
        per_value = x.shape[2] / x.numel()
        g_shift = g_shift.flatten()
        # The shift holds the gain too, and the gain is weight / sqrt(variance + eps).
        g_gain = torch.addcmul(g_gain.flatten(), mean, g_shift, value=-1.0)
        gain = weight * inverse
        slope = gain * inverse * inverse * g_gain * -per_value
        offset = gain * g_shift * -per_value - slope * mean
        _add_affine_(g, x, slope, offset)
        return g, (g_gain * inverse).to(weight.dtype), g_shift.to(ctx.bias_dtype), None


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
    kind = DTYPES[dtype]
    load, _ = conversions(dtype)
    source = f"{_IMPORTS}\nkernel = make_statistics({load})\n"
    parameters = {"x": f"{kind}*", "x_step": "int64", "origin": "float64*", "sums": "float64*"}
    return Kernel("statistics", source, parameters | _LAYOUT)


@cache
def _add_affine_kernel(dtype: torch.dtype) -> Kernel:
    kind = DTYPES[dtype]
    real = "float64*" if kind == "float64" else "float32*"
    source = f"{_IMPORTS}\nkernel = make_add_affine({', '.join(conversions(dtype))})\n"
    parameters = {"g": f"{kind}*", "x": f"{kind}*", "x_step": "int64", "slope": real,
                  "offset": real}  # fmt: skip
    return Kernel("add_affine", source, parameters | _LAYOUT)


_IMPORTS = """from rheobase.ops.batch_norm_kernels import make_add_affine, make_statistics, same
from rheobase.ops.numba_lang import bfloat16_to_float, float_to_bfloat16"""
