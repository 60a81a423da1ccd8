"""What batch norm needs besides the scan that applies it: a batch's statistics, and their gradient.

Everything is by channel, axis 2 of ``[T, N, C, ...]``, in float64.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rheobase.ops.native import Kernel, in_chunks
from rheobase.ops.scan.layout import compute_dtype, flat

__all__ = ["add_affine_", "batch_statistics"]

_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel.

    Args:
        x: ``[T, N, C, ...]`` on the CPU, with dense rows (`dense_rows`).

    Returns:
        two tensors ``[C]``, float64.
    """
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


def add_affine_(g: Tensor, x: Tensor, slope: Tensor, offset: Tensor) -> None:
    """``g += slope * x + offset`` in place; ``slope`` and ``offset`` are ``[C]``.

    Args:
        g: ``[T, N, C, ...]`` in the dense order of ``x``, without gaps.
        x: ``[T, N, C, ...]`` on the CPU, with dense rows.
        slope: of each channel.
        offset: of each channel.
    """
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
