"""Average pooling over windows that do not overlap, images channels last, on the CPU.

One pass over memory each way, where PyTorch's gradient first clears what it then adds to.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rheobase.ops.eager import is_seen_by_nobody, watched
from rheobase.ops.native import DTYPES, Kernel, conversions, in_chunks

__all__ = ["average_pool", "takes"]


def takes(x: Tensor, pool: nn.AvgPool2d) -> bool:
    """Whether `average_pool` can do this pooling of these images."""
    size = pool.kernel_size
    return (
        isinstance(size, int)
        and pool.stride in (size, (size, size))
        and pool.padding in (0, (0, 0))
        and pool.divisor_override is None
        and x.dim() == 4
        and x.is_cpu
        and x.dtype in DTYPES
        and x.shape[1] > 1
        and x.numel() > 0
        and x.shape[2] % size == x.shape[3] % size == 0
        and is_seen_by_nobody(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not watched(pool)
    )


def average_pool(x: Tensor, pool: nn.AvgPool2d) -> Tensor:
    """``pool(x)``, to the last bit, where `takes`.

    >>> x = torch.arange(32.0).view(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> average_pool(x, nn.AvgPool2d(2))[0, 0]
    tensor([[ 2.5000,  4.5000],
            [10.5000, 12.5000]])
    """
    out: Tensor = _AveragePool.apply(x, pool.kernel_size)  # type: ignore[no-untyped-call]
    return out


class _AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, size):  # type: ignore[no-untyped-def]
        ctx.size = size
        images, channels, height, width = x.shape
        out = torch.empty(
            images, channels, height // size, width // size, dtype=x.dtype,
            memory_format=torch.channels_last,
        )  # fmt: skip
        _run("averages", x, out, size)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        images, channels, height, width = g.shape
        gx = torch.empty(
            images, channels, height * ctx.size, width * ctx.size, dtype=g.dtype,
            memory_format=torch.channels_last,
        )  # fmt: skip
        _run("shares", gx, g.contiguous(memory_format=torch.channels_last), ctx.size)
        return gx, None


def _run(name: str, whole: Tensor, pooled: Tensor, size: int) -> None:
    images, channels, height, width = pooled.shape
    rows = images * height
    chunks, chunk = in_chunks(rows)
    _kernel(name, whole.dtype)(
        chunks, whole.nbytes + pooled.nbytes, whole, pooled, rows, chunk, width, channels, size
    )


@cache
def _kernel(name: str, dtype: torch.dtype) -> Kernel:
    kind = DTYPES[dtype]
    real = "float64" if kind == "float64" else "float32"
    source = f"""import numpy as np
from rheobase.ops.average_pool_kernels import make_{name}
from rheobase.ops.batch_norm_kernels import same
from rheobase.ops.numba_lang import bfloat16_to_float, float_to_bfloat16
kernel = make_{name}({", ".join(conversions(dtype))}, np.{real})
"""
    sizes = dict.fromkeys(("rows", "chunk", "width", "channels", "size"), "int64")
    return Kernel(name, source, {"whole": f"{kind}*", "pooled": f"{kind}*"} | sizes)
