"""1x1 convolution of float32 images on the CPU, as products whose sums stay in registers.

What spiking transformers spend most of their time on. An image's pixels are the columns, as they
lie; a library's product copies its operands first, and takes a fifth longer.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from rheobase.ops.eager import is_plain_image, layer_dtype, watched
from rheobase.ops.native import Kernel, imported_kernel
from rheobase.ops.once import once_differentiable
from rheobase.ops.products.sizes import COLUMNS, padded

__all__ = ["conv1x1", "takes"]


def takes(x: Tensor, module: object) -> bool:
    """Whether `conv1x1` can stand for this layer on this input.

    It says the same for any number of images: results do not depend on how a sequence is cut.

    Args:
        x: ``[N, C, H, W]``.
        module: the layer; only an `nn.Conv2d` as it is, with 1x1 kernel and stride 1, can be.
    """
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == module.stride == (1, 1)
        and module.padding == (0, 0)
        and module.groups == 1
        and module.in_channels % COLUMNS == module.out_channels % COLUMNS == 0
        and is_plain_image(x, module.weight)
        and layer_dtype(x, module.weight) == torch.float32
        and x.shape[2] * x.shape[3] % COLUMNS == 0
        and x.is_contiguous()
        and not watched(module)
    )


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution with a 1x1 kernel and stride 1.

    Args:
        x: ``[N, C, H, W]`` float32 on the CPU, contiguous; C and the number of pixels are
            multiples of 16.
        weight: ``[C', C, 1, 1]``, C' a multiple of 16 too.
        bias: ``[C']`` or None.

    Returns:
        ``[N, C', H, W]``, contiguous.
    """
    y: Tensor = _Conv1x1.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _Conv1x1(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight.flatten(1), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        g = g.contiguous()
        gx = _convolve(g, weight.flatten(1).t(), None) if wanted[0] else None
        gw = _weight_gradient(x, g).view_as(weight) if wanted[1] else None
        # In two steps, each along memory: five times as fast as in one.
        gb = g.flatten(2).sum(2).sum(0) if wanted[2] else None
        return gx, gw, gb


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x`` ``[N, C, H, W]`` with ``weight`` ``[C', C]``."""
    images, channels, height, width = x.shape
    outputs = len(weight)
    y = x.new_empty(images, outputs, height, width)
    # Images apart, and where there are fewer than threads, parts of their outputs.
    rows = padded(-(-outputs * images // torch.get_num_threads()))
    pieces = -(-outputs // min(rows, outputs))
    _kernel("convolve")(
        images * pieces, x.nbytes + y.nbytes, x, weight.contiguous(),
        weight.new_zeros(outputs) if bias is None else bias.contiguous(), y,
        pieces, min(rows, outputs), channels, outputs, height * width,
    )  # fmt: skip
    return y


def _weight_gradient(x: Tensor, g: Tensor) -> Tensor:
    images, channels, height, width = x.shape
    outputs = g.shape[1]
    grad = x.new_empty(outputs, channels)
    chunk = padded(-(-channels // torch.get_num_threads()))
    _kernel("weight_gradient")(
        -(-channels // chunk), x.nbytes + g.nbytes, x.contiguous(), g, grad, images, chunk,
        channels, outputs, height * width,
    )  # fmt: skip
    return grad


# Kernel -> the arrays and the numbers that it is called with.
_KERNELS = {
    "convolve": (("x", "weight", "bias", "y"), ("pieces", "rows", "channels", "outputs", "pixels")),
    "weight_gradient": (("x", "g", "grad"), ("images", "chunk", "channels", "outputs", "pixels")),
}


@cache
def _kernel(name: str) -> Kernel:
    arrays, numbers = _KERNELS[name]
    kinds = dict.fromkeys(arrays, "float32*") | dict.fromkeys(numbers, "int64")
    return imported_kernel("products.cpu", name, kinds)
