"""Convolutions and products with spikes, by looking sums up: for inference.

Of four inputs that are 0 or 1 there are sixteen sets. With the sum of the weights of every set in
a table, four multiplications and additions are one addition of a row (the "method of the four
Russians": Arlazarov, Dinic, Kronrod, Faradzhev 1970), and every sum is that of the weights
themselves, in another order.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.ops.eager import is_plain, is_seen_by_nobody
from rheobase.ops.fits import fits
from rheobase.ops.lookup.sizes import CODES, GROUP, PIXELS, VECTOR
from rheobase.ops.native import DTYPES, Kernel, imported_kernel, in_chunks

__all__ = ["lookup_conv2d", "tables_of", "takes_spikes"]


def takes_spikes(x: Tensor, weight: Tensor, padding: tuple[int, int] = (0, 0)) -> bool:
    """Whether this may be looked up: an eager call on the CPU that autograd does not follow."""
    return (
        x.device.type == "cpu"
        and fits(x, weight, padding)
        and weight.dtype in (torch.float32, torch.float64)
        and x.dtype in (weight.dtype, torch.uint8)
        and is_seen_by_nobody(x)
        and is_plain(weight)  # a class of tensors may have a product of its own
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.numel() > 0
    )


def tables_of(weight: Tensor) -> Tensor:
    """The sums of every set of four inputs: ``[blocks, h, w * C / 4, 16, a block]``.

    Args:
        weight: ``[O, C, h, w]``; to inputs and outputs that are missing to a whole four or block
            there are weights of 0.
    """
    outputs, inputs, high, _ = weight.shape
    block = _block(outputs, weight.dtype)
    padded = F.pad(weight.detach(), (0, 0, 0, 0, 0, -inputs % GROUP, 0, -outputs % block))
    rows = padded.permute(2, 3, 1, 0).contiguous()
    blocks, count = padded.shape[0] // block, rows.numel() // (GROUP * padded.shape[0])
    tables = rows.new_empty(blocks, high, count // high, CODES, block)
    chunks, chunk = in_chunks(count)
    _fill_tables(weight.dtype)(chunks, tables.nbytes, rows, tables, blocks, block, count, chunk)
    return tables


def lookup_conv2d(
    x: Tensor,
    tables: Tensor,
    bias: Tensor | None,
    outputs: int,
    kernel_width: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor | None:
    """``F.conv2d(x, weight, bias, stride, padding)``, or None where an input is neither 0 nor 1.

    Args:
        x: ``[N, C, H, W]`` of the tables' dtype or uint8, best channels last.
        tables: `tables_of` the weight.
        bias: ``[O]``.
        outputs: O.
        kernel_width: of the weight ``[O, C, h, w]``.
        stride: down and right.
        padding: zeros on either side, down and right.

    Returns:
        ``[N, O, H', W']``, channels last.
    """
    blocks, kernel_height, count, _, block = tables.shape
    vectors = block * tables.element_size() // VECTOR
    groups = count // kernel_width
    images, _, height, width = x.shape
    codes = _codes(x, groups, padding, 8 * vectors)
    if codes is None:
        return None
    padded = height + 2 * padding[0], width + 2 * padding[1]
    window = kernel_height, kernel_width
    high, wide = ((n - k) // s + 1 for n, k, s in zip(padded, window, stride, strict=True))
    pixels = images * high * wide
    chunks, chunk = in_chunks(pixels, PIXELS)
    out = tables.new_empty(chunks * chunk, blocks * block)
    start = F.pad(tables.new_zeros(outputs) if bias is None else bias, (0, out.shape[1] - outputs))
    _convolve(tables.dtype, vectors)(
        chunks, codes.nbytes * kernel_height * kernel_width * blocks, codes, tables, start, out,
        blocks, high, wide, *padded, groups, *window, *stride, pixels, chunk,
    )  # fmt: skip
    return out[:pixels, :outputs].contiguous().view(images, high, wide, outputs).permute(0, 3, 1, 2)


def _codes(x: Tensor, groups: int, padding: tuple[int, int], scale: int) -> Tensor | None:
    """The numbers of fours of spikes ``[N, padded H, padded W, groups]`` times a scale."""
    x = x.permute(0, 2, 3, 1).contiguous()
    if x.shape[-1] < groups * GROUP:
        x = F.pad(x, (0, groups * GROUP - x.shape[-1]))
    images, height, width, channels = x.shape
    (down, right), pixels = padding, images * height * width
    codes = torch.zeros(images, height + 2 * down, width + 2 * right, groups, dtype=torch.uint8)
    if padding == (0, 0):
        height, width = 1, pixels
    chunks, chunk = in_chunks(pixels)
    binary = torch.empty(chunks, dtype=torch.uint8)
    _encode(x.dtype)(
        chunks, x.nbytes, x, codes, binary, channels, height, width, down, right, scale, pixels,
        chunk,
    )  # fmt: skip
    return codes if bool(binary.all()) else None


@cache
def _fill_tables(dtype: torch.dtype) -> Kernel:
    arrays = dict.fromkeys(("weights", "tables"), f"{DTYPES[dtype]}*")
    sizes = ("blocks", "block", "count", "chunk")
    return imported_kernel("lookup.rows", "fill_tables", arrays | dict.fromkeys(sizes, "int64"))


@cache
def _encode(dtype: torch.dtype) -> Kernel:
    kind = "uint8" if dtype == torch.uint8 else DTYPES[dtype]
    arrays = {"x": f"{kind}*", "codes": "uint8*", "binary": "uint8*"}
    sizes = ("channels", "height", "width", "pad_y", "pad_x", "scale", "pixels", "chunk")
    return imported_kernel("lookup.rows", "encode", arrays | dict.fromkeys(sizes, "int64"))


@cache
def _convolve(dtype: torch.dtype, vectors: int) -> Kernel:
    kind = DTYPES[dtype]
    arrays = {"codes": "uint8*", **dict.fromkeys(("tables", "bias", "out"), f"{kind}*")}
    sizes = (
        "blocks", "height", "width", "padded_height", "padded_width", "groups", "kernel_height",
        "kernel_width", "stride_y", "stride_x", "pixels", "chunk",
    )  # fmt: skip
    name = f"convolve_{kind}_{vectors}"
    return imported_kernel("lookup.rows", name, arrays | dict.fromkeys(sizes, "int64"))


def _block(outputs: int, dtype: torch.dtype) -> int:
    """How many outputs a row has: two vectors, or one where that leaves less empty."""
    lanes = VECTOR // dtype.itemsize
    return 2 * lanes if -outputs % (2 * lanes) < lanes else lanes
