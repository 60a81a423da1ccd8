"""3x3 convolution of images by Winograd's F(4x4, 3x3): a quarter of the multiplications.

Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308. A tile of
6x6 inputs and the weights are taken to 36 points, where the convolution is 36 products, and taken
back to 4x4 outputs. Spikes (small integers) are transformed without rounding. The result differs
from the direct sum by about 1e-6 of its size, where float32 itself leaves 1e-7. Of bfloat16 images
only what is read and written is bfloat16: weights stay as they are, and sums are of float32.
"""

from __future__ import annotations

import threading
from functools import cache

import torch
from torch import Tensor, nn

from rheobase.ops.eager import is_plain_image, layer_dtype, watched
from rheobase.ops.native import DTYPES, Kernel, imported_kernel, in_chunks
from rheobase.ops.once import once_differentiable
from rheobase.ops.products.sizes import padded
from rheobase.ops.winograd.sizes import apart

__all__ = ["conv3x3", "spread", "takes"]

_TILE = 4
# A thread's share of the cache, in bytes.
_CACHE = 1 << 21
# Below this many channels the transforms cost more than the products save.
_CHANNELS = 32
# In smaller images there are too few tiles to each load of the transformed weights.
_PIXELS = 64
# For fewer tiles the gradient at 36 points of every weight is more than what the products save.
_TILES_BACK = 128


def takes(x: Tensor, module: object) -> bool:
    """Whether `conv3x3` can stand for this layer on this input, and is the faster way.

    It says the same for any number of images: results do not depend on how a sequence is cut.

    Args:
        x: ``[N, C, H, W]``.
        module: the layer; only an `nn.Conv2d` as it is, with 3x3 kernel, stride 1 and zero padding
            1, can be.
    """
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and min(module.in_channels, module.out_channels) >= _CHANNELS
        and _takes_input(x, module.weight)
        and not watched(module)
    )


def _takes_input(x: Tensor, weight: Tensor) -> bool:
    if not is_plain_image(x, weight) or layer_dtype(x, weight) not in _dtypes():
        return False
    height, width = x.shape[2:]
    down, across = _tiles(height, width)
    return (
        height * width >= _PIXELS
        # Tiles that reach over the edge work for nothing.
        and down * across * _TILE**2 <= 1.5 * height * width
        and x.is_contiguous(memory_format=torch.channels_last)
    )


@cache
def _dtypes() -> tuple[torch.dtype, ...]:
    """Where a processor multiplies tiles of bfloat16 (AMX), nothing is faster than that."""
    amx = torch.cpu.get_capabilities().get("amx_bf16", False)
    return (torch.float32,) if amx else (torch.float32, torch.bfloat16)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, points: Tensor | None = None) -> Tensor:
    """Convolution with a 3x3 kernel, stride 1, padding 1; under autocast, in its dtype.

    Args:
        x: ``[N, C, H, W]`` float32 or bfloat16 on the CPU, channels last.
        weight: ``[C', C, 3, 3]``.
        bias: ``[C']`` or None.
        points: `spread` of the weight, where the caller has it.

    Returns:
        ``[N, C', H, W]``, channels last.
    """
    x = x.to(layer_dtype(x, weight))
    y: Tensor = _Conv3x3.apply(x, weight, bias, points)  # type: ignore[no-untyped-call]
    return y


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, points):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return _convolve(x, spread(weight) if points is None else points, len(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if _chunks(x)[0] < _TILES_BACK:
            bias = [len(weight)]
            ones = ([1, 1], [1, 1], [1, 1])
            gradients = torch.ops.aten.convolution_backward(
                g, x, weight.to(x.dtype), bias, *ones, False, [0, 0], 1, wanted
            )
            return *gradients, None
        g = g.contiguous(memory_format=torch.channels_last)
        # The gradient of a convolution is one with the kernel turned round.
        gx = _convolve(g, spread(weight, turned=True), x.shape[1]) if wanted[0] else None
        gw = _weight_gradient(x, g).to(weight.dtype) if wanted[1] else None
        gb = g.sum((0, 2, 3), dtype=weight.dtype) if wanted[2] else None
        return gx, gw, gb, None


def _convolve(x: Tensor, points: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """``x`` ``[N, C, H, W]`` with transformed weights (`spread`)."""
    bias = points.new_zeros(outputs) if bias is None else bias.float().contiguous()
    size = (len(x), outputs, *x.shape[2:])
    y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    _on_tiles("convolve", x, outputs, x, points, bias, y)
    return y


def _weight_gradient(x: Tensor, g: Tensor) -> Tensor:
    channels, outputs = x.shape[1], g.shape[1]
    parts, wide_in, wide_out = _chunks(x)[1], padded(channels), padded(outputs)
    sums = torch.empty(parts, 36, wide_in, wide_out, dtype=torch.float32)
    _on_tiles("weight_gradient", x, outputs, x, g, sums)
    weight = sums.new_empty(outputs, channels, 3, 3)
    chunks, chunk = in_chunks(channels)
    _kernel("gather_weight")(
        chunks, sums.nbytes, sums, weight, parts, channels, outputs, wide_in, wide_out, chunk
    )
    return weight


def _on_tiles(kernel: str, x: Tensor, outputs: int, *arrays: Tensor) -> None:
    """Run a kernel that goes over the tiles of ``x``."""
    channels, height, width = x.shape[1:]
    wide_in, wide_out = padded(channels), padded(outputs)
    total, chunks, chunk = _chunks(x)
    room = _at_once(channels, outputs)
    traffic = sum(array.nbytes for array in arrays)
    _kernel(kernel, x.dtype)(
        chunks, traffic, *arrays, _scratch(chunks, room, wide_in, wide_out), total, chunk, room,
        height, width, channels, outputs, wide_in, wide_out,
    )  # fmt: skip


def spread(weight: Tensor, turned: bool = False) -> Tensor:
    """Weights ``[C', C, 3, 3]`` at 36 points, ``[36, C, C']``, or turned round ``[36, C', C]``.

    The last axis is padded.
    """
    weight = weight.float().contiguous()
    outputs, channels = weight.shape[:2]
    count, length = (outputs, channels) if turned else (channels, outputs)
    step, stride = (9 * channels, 9) if turned else (9, 9 * channels)
    points = weight.new_empty(36, count, padded(length))
    chunks, chunk = in_chunks(count)
    _kernel("spread_weight")(
        chunks, points.nbytes, weight, points, count, length, padded(length), step, stride,
        int(turned), chunk,
    )  # fmt: skip
    return points


def _chunks(x: Tensor) -> tuple[int, int, int]:
    """How many tiles, and in how many chunks of how many: a chunk for each thread."""
    down, across = _tiles(*x.shape[2:])
    total = x.shape[0] * down * across
    chunk = -(-total // min(torch.get_num_threads(), -(-total // 4)))
    chunk = -(-chunk // 4) * 4
    return total, -(-total // chunk), chunk


def _at_once(channels: int, outputs: int) -> int:
    """How many tiles a thread transforms before it multiplies.

    They should stay in its cache; but each time all transformed weights are read (or summed up), so
    of wide layers there are enough that transforms are half as large as the weights.
    """
    in_cache = _CACHE // (36 * 4 * (channels + outputs))
    worth_the_weights = channels * outputs // (2 * (channels + outputs))
    return max(16, in_cache // 4 * 4, worth_the_weights // 4 * 4)


class _Kept(threading.local):
    """Memory that each Python thread keeps from call to call: it stays in the caches."""

    scratch = torch.empty(0, dtype=torch.float32)


_kept = _Kept()


def _scratch(chunks: int, room: int, wide_in: int, wide_out: int) -> Tensor:
    """Room for the tiles of every chunk, before and after the products."""
    size = chunks * 36 * (apart(room, wide_in) + apart(room, wide_out))
    if _kept.scratch.numel() < size:
        _kept.scratch = torch.empty(size, dtype=torch.float32)
    return _kept.scratch


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // _TILE), -(-width // _TILE)


_NUMBERS = (
    "total", "chunk", "room", "height", "width", "channels", "outputs", "wide_in", "wide_out",
)  # fmt: skip
_IMAGES = ("x", "y", "g")
# Kernel -> its module, the arrays and the numbers that it is called with.
_KERNELS = {
    "convolve": ("cpu", ("x", "weight", "bias", "y", "scratch"), _NUMBERS),
    "weight_gradient": ("cpu", ("x", "g", "sums", "scratch"), _NUMBERS),
    "spread_weight": (
        "cpu_weights",
        ("weight", "points"),
        ("count", "length", "wide", "step", "stride", "turned", "chunk"),
    ),
    "gather_weight": (
        "cpu_weights",
        ("points", "weight"),
        ("parts", "count", "length", "lines_wide", "wide", "chunk"),
    ),
}


@cache
def _kernel(name: str, images: torch.dtype = torch.float32) -> Kernel:
    module, arrays, numbers = _KERNELS[name]
    kinds = dict.fromkeys(arrays, "float32*") | dict.fromkeys(numbers, "int64")
    kinds |= {array: f"{DTYPES[images]}*" for array in arrays if array in _IMAGES}
    return imported_kernel(f"winograd.{module}", name, kinds)
