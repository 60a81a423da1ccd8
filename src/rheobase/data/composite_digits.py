"""Canvases of several digits with their boxes: detection made from a set of single digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.data.images import ImageDataset

__all__ = ["CompositeDigits", "composite_digits"]

_HEIGHTS = (14, 28)  # of a digit on the canvas, in pixels
_TRIES = 10  # for a place that is free
_INK = 32  # of 255: paler pixels at a digit's rim are not in its box


@dataclass(frozen=True)
class CompositeDigits:
    """Images and what is on them.

    Attributes:
        images: ``[N, 1, S, S]``, in [0, 1].
        boxes: ``[N, most, 4]``: left, top, right, bottom in pixels.
        labels: ``[N, most]``: the digit in each box, -1 where there is none.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor


def composite_digits(
    digits: ImageDataset, count: int, *, size: int = 64, most: int = 4, seed: int = 0
) -> CompositeDigits:
    """Put one to ``most`` digits, 14 to 28 pixels high, on each of ``count`` black canvases.

    A digit's box is the smallest that holds its ink. Boxes do not overlap: a digit that finds no
    free place in ten tries is left out.

    Args:
        digits: MNIST, or its sample.
        count: canvases.
        size: their side in pixels.
        most: digits on one.
        seed: of choices, heights and places.

    Raises:
        ValueError: no canvas or no digit asked for, or a canvas too small for a digit.

    >>> from rheobase.data import MNISTSample
    >>> made = composite_digits(MNISTSample(train=False), 3)
    >>> made.images.shape, made.boxes.shape, made.labels.shape
    (torch.Size([3, 1, 64, 64]), torch.Size([3, 4, 4]), torch.Size([3, 4]))
    """
    if count < 1 or most < 1:
        raise ValueError(f"at least one canvas and one digit, got {count=}, {most=}")
    if size < _HEIGHTS[1]:
        raise ValueError(f"a canvas is at least {_HEIGHTS[1]} pixels wide, got {size=}")
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 1, size, size)
    boxes = torch.zeros(count, most, 4)
    labels = torch.full((count, most), -1)

    def below(end: int) -> int:
        return int(torch.randint(end, (1,), generator=generator))

    for canvas in range(count):
        found: list[Tensor] = []
        for _ in range(1 + below(most)):
            chosen = below(len(digits))
            high = _HEIGHTS[0] + below(_HEIGHTS[1] - _HEIGHTS[0] + 1)
            digit = _cut_out(digits.images[chosen, 0], high)
            for _ in range(_TRIES):
                left, top = below(size - digit.shape[1] + 1), below(size - high + 1)
                box = torch.tensor([left, top, left + digit.shape[1], top + high])
                if not any(_overlap(box, other) for other in found):
                    images[canvas, 0, top : box[3], left : box[2]] = digit
                    boxes[canvas, len(found)] = box
                    labels[canvas, len(found)] = digits.labels[chosen]
                    found.append(box)
                    break
    return CompositeDigits(images, boxes, labels)


def _cut_out(digit: Tensor, high: int) -> Tensor:
    """The smallest rectangle that holds the ink of ``[H, W]`` bytes, made ``high`` pixels high."""
    rows, columns = (digit >= _INK).nonzero().unbind(1)
    inside = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    wide = max(3, min(_HEIGHTS[1], round(inside.shape[1] * high / inside.shape[0])))
    pixels = inside[None, None].float() / 255.0
    return F.interpolate(pixels, (high, wide), mode="bilinear", antialias=True)[0, 0]


def _overlap(a: Tensor, b: Tensor) -> bool:
    return bool((torch.maximum(a[:2], b[:2]) < torch.minimum(a[2:], b[2:])).all())
