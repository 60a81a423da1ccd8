"""Bytes times weights of 8 bits by PyTorch's convolution (oneDNN), on processors that have it.

Four products an instruction are added up in int32. Where there is no such instruction (VNNI), older
ones add pairs in int16, which overflows: those processors do without.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["dense_conv2d", "has_byte_products", "packed"]


@cache
def has_byte_products() -> bool:
    """Whether this processor multiplies bytes exactly, and this PyTorch lets it."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and supported() and hasattr(torch.ops.onednn, "qconv_pointwise")


def packed(
    values: Tensor,
    scale: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """The weights ``[O, C / groups, h, w]`` int8 as `dense_conv2d` takes them."""
    made: Tensor = torch.ops.onednn.qconv_prepack(
        values, scale, 1.0, 0, stride, padding, dilation, groups
    )
    return made


def dense_conv2d(
    x: Tensor,
    weights: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """``scale * conv2d(x, weights) + bias``.

    Args:
        x: ``[N, C, H, W]`` uint8, channels last.
        weights: as `packed` made them.
        scale: ``[O]`` float32.
        bias: ``[O]`` float32.
        stride: down and right; so are padding and dilation.
        padding: zeros on either side.
        dilation: between the kernel's places.
        groups: of channels.

    Returns:
        ``[N, O, H', W']`` float32, channels last.
    """
    zero = torch.zeros(scale.shape, dtype=torch.int64)
    y: Tensor = torch.ops.onednn.qconv_pointwise(
        x, 1.0, 0, weights, scale, zero, bias, stride, padding, dilation, groups,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return y
