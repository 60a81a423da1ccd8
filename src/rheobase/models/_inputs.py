"""Checks at the door of vision networks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from rheobase.layers import repeat

__all__ = ["as_sequence", "check_choice", "check_divides", "check_positive", "check_sizes"]


def as_sequence(
    x: Tensor, *, steps: int, channels: int, divisor: int = 1, size: int | None = None
) -> Tensor:
    """An image ``[N, C, H, W]`` repeated over ``steps`` (lazily), or a sequence as it is.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: wrong rank or number of channels, empty, sides not divisible, or not those of
            ``size``.
    """
    if not x.is_floating_point():
        raise TypeError(f"the network takes floating point input, got {x.dtype}; call x.float()")
    shape = list(x.shape)
    if x.dim() not in (4, 5):
        raise ValueError(
            f"the network takes images [N, C, H, W] or sequences [T, N, C, H, W], got {shape}; "
            "a single image becomes x.unsqueeze(0)"
        )
    if 0 in x.shape:
        raise ValueError(f"the network got an empty input, shape {shape}")
    if x.shape[-3] != channels:
        raise ValueError(
            f"the network has {channels} input channels, the input {shape} has {x.shape[-3]}; "
            f"build it with channels={x.shape[-3]}"
        )
    if x.shape[-2] % divisor or x.shape[-1] % divisor:
        raise ValueError(
            f"image sides must be multiples of the patch size {divisor}, got input {shape}; "
            "resize the images, or build the network with another patch_size"
        )
    if size is not None and x.shape[-2:] != (size, size):
        raise ValueError(
            f"the network's linear layers are for images of side {size}, got input {shape}; "
            "resize the images, or build the network with another image_size"
        )
    if x.dim() == 4:
        return repeat(_fast_order(x), steps)
    return _fast_order(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call,no-any-return]


def _fast_order(images: Tensor) -> Tensor:
    """The same images in channels-last order, which convolutions and poolings prefer."""
    return images.contiguous(memory_format=torch.channels_last)


def check_sizes(
    *, dim: int, dim_multiple: int, heads: int, image_size: int, patch_size: int, **positive: float
) -> None:
    """Refuse sizes of a transformer that do not divide each other, or are not positive.

    Raises:
        ValueError: naming the size that does not fit.
    """
    check_positive(dim=dim, heads=heads, image_size=image_size, **positive)
    if dim % dim_multiple:
        raise ValueError(
            f"dim must be a multiple of {dim_multiple}, for the stem; got {dim}, "
            f"take {_multiple_near(dim, dim_multiple)}"
        )
    check_divides("heads", heads, dim, f"dim={dim}")
    if image_size % patch_size:
        raise ValueError(
            f"image_size={image_size} is not a multiple of patch_size={patch_size}; resize the "
            f"images to {_multiple_near(image_size, patch_size)}"
        )


def check_positive(**sizes: float) -> None:
    """Refuse sizes of a network that are not positive.

    Raises:
        ValueError: naming the first such size.
    """
    for name, size in sizes.items():
        if size <= 0:
            raise ValueError(f"{name} must be positive, got {size}")


def check_divides(name: str, part: int, whole: int, what: str) -> None:
    """Refuse a part that does not divide the whole, which is called ``what``.

    Raises:
        ValueError: it does not; the nearest that do are offered.
    """
    if part > 0 and whole % part == 0:
        return
    divisors = [n for n in range(1, whole + 1) if whole % n == 0]
    nearest = sorted(sorted(divisors, key=lambda n: abs(n - part))[:2])
    raise ValueError(f"{name}={part} does not divide {what}; take {' or '.join(map(str, nearest))}")


def _multiple_near(size: int, of: int) -> int:
    return of * max(1, round(size / of))


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {known}, got {value!r}")
