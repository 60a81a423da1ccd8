"""Max pooling before a batch norm instead of behind it, on the GPU.

Where the norm's gain is positive the maximum of what is normalised is the norm of the maximum;
where it is negative, of the minimum. Pooled first, a quarter is normalised, and what is kept for
the backward pass is a byte for each window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rheobase.ops.gpu import gpu_kernels
from rheobase.ops.scan.layout import rows_like

__all__ = ["pool_before_norm", "pools_before_norm"]


def pools_before_norm(pool: nn.MaxPool2d) -> bool:
    """Whether `pool_before_norm` does this pooling: square windows without gaps."""
    return (
        isinstance(pool.kernel_size, int)
        and pool.kernel_size < 16
        and isinstance(pool.stride, int)
        and isinstance(pool.padding, int)
        and pool.dilation in (1, (1, 1))
        and not pool.ceil_mode
        and not pool.return_indices
    )


def pool_before_norm(x: Tensor, weight: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """What batch norm must be given so that it gives ``pool(norm(x))``.

    Args:
        x: ``[N, C, H, W]`` on a GPU, contiguous or channels last.
        weight: the norm's ``[C]``, whose signs count.
        pool: where `pools_before_norm`.

    Returns:
        ``[N, C, H', W']``.
    """
    out: Tensor = _PoolBeforeNorm.apply(  # type: ignore[no-untyped-call]
        x, weight, pool.kernel_size, pool.stride, pool.padding
    )
    return out


class _PoolBeforeNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, *window):  # type: ignore[no-untyped-def]
        out, place = gpu_kernels("pool").choose(x, weight, *window)
        ctx.save_for_backward(x, place)
        ctx.window = window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        x, place = ctx.saved_tensors
        g = rows_like(g.unsqueeze(0), place.unsqueeze(0)).squeeze(0)
        return gpu_kernels("pool").spread(g, place, x, *ctx.window), None, None, None, None
