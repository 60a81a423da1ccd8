"""A convolution that reads only the weights of pixels' channels that are not 0: for inference.

At a batch of one and few spikes it takes a fraction of the dense convolution's time. Training stays
dense: its gradients are.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.ops.events.compressed import compressed, takes_events
from rheobase.ops.events.kernel import event_kernel
from rheobase.ops.fits import fits
from rheobase.ops.native import Kernel, in_chunks

__all__ = ["event_conv2d", "matrices_by_place"]


def event_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    matrices: Tensor | None = None,
) -> Tensor:
    """``F.conv2d(x, weight, bias, stride, padding)``, event by event where ``x`` has few.

    The result is that of the dense convolution up to rounding, and exactly that where sums are
    exact (integers). Denser input, other devices and dtypes, traced calls, and calls that autograd
    follows take the dense convolution.

    Args:
        x: ``[N, C, H, W]``, best channels last.
        weight: ``[O, C, h, w]``.
        bias: ``[O]``.
        stride: down and right.
        padding: down and right.
        matrices: `matrices_by_place` of the weight, where the caller has it.

    Returns:
        ``[N, O, H', W']``, channels last.
    """
    followed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    events = None
    if takes_events(x, weight) and fits(x, weight, padding, bias=bias) and not followed:
        events = compressed(x.permute(0, 2, 3, 1))
    if events is None:
        return F.conv2d(x, weight, bias, stride, padding)
    (outputs, inputs, *window), (height, width) = weight.shape, x.shape[2:]
    spans = zip((height, width), window, stride, padding, strict=True)
    high, wide = ((n + 2 * p - k) // s + 1 for n, k, s, p in spans)
    out = x.new_empty(x.shape[0], high, wide, outputs)
    start = weight.new_zeros(outputs) if bias is None else bias.detach().contiguous()
    by_place = matrices_by_place(weight) if matrices is None else matrices
    rows = x.shape[0] * high * wide
    chunks, chunk = in_chunks(rows)
    traffic = x.nbytes + out.nbytes * window[0] * window[1]
    _convolve(x.dtype)(
        chunks, traffic, *events.arrays, by_place, start, out, inputs, outputs, height, width, high,
        wide, *window, *stride, *padding, rows, chunk,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def matrices_by_place(weight: Tensor) -> Tensor:
    """The weight ``[O, C, h, w]`` as ``[h, w, C, O]``, as the kernel reads it."""
    return weight.detach().permute(2, 3, 1, 0).contiguous()


@cache
def _convolve(dtype: torch.dtype) -> Kernel:
    arrays = ("which", "values", "starts", "counts", "matrices", "bias", "out")
    sizes = (
        "inputs", "outputs", "height", "width", "out_height", "out_width", "kernel_height",
        "kernel_width", "stride_y", "stride_x", "pad_y", "pad_x", "rows", "chunk",
    )  # fmt: skip
    return event_kernel("convolve", dtype, arrays, sizes)
