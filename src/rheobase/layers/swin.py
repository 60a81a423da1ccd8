"""Swin transformer on sequences of maps: attention inside windows of space and time.

Liu et al. 2021, arXiv 2103.14030 (images: one step, windows one step deep), and Liu et al. 2022
(video), arXiv 2106.13230. All of it is real-valued: hybrids use it beside spiking parts.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from rheobase.layers.drop import DropPath

__all__ = ["SwinStages", "Window"]

Window = tuple[int, int, int]
"""Steps, rows and columns of a window."""


class WindowAttention(nn.Module):
    """Attention inside windows, with a learnt bias for every offset of two tokens."""

    offsets: Tensor

    def __init__(self, dim: int, heads: int, window: Window) -> None:
        super().__init__()
        self.heads = heads
        depth, height, width = window
        table = torch.zeros((2 * depth - 1) * (2 * height - 1) * (2 * width - 1), heads)
        self.bias = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("offsets", _offsets(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, windows, L, C]`` to the same shape; ``mask`` ``[windows, 1, L, L]`` is added."""
        tokens = x.shape[2]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # A window cut short by a small map takes the first offsets, as the released code does.
        scores = self.bias[self.offsets[:tokens, :tokens]].permute(2, 0, 1)
        y = scaled_dot_product_attention(q, k, v, scores if mask is None else scores + mask)
        out: Tensor = self.proj(y.transpose(2, 3).flatten(3))
        return out


def _offsets(window: Window) -> Tensor:
    """A number for the offset of each token of a window to each, ``[L, L]``."""
    axes = [torch.arange(n) for n in window]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    number = torch.zeros(place.shape[1], place.shape[1], dtype=torch.long)
    for at, size in zip(place, window, strict=True):
        number = number * (2 * size - 1) + at[:, None] - at[None, :] + size - 1
    return number


class SwinBlock(nn.Module):
    """Window attention, then MLP, each behind a layer norm and with a shortcut."""

    def __init__(self, dim: int, heads: int, window: Window, shifts: bool, drop: float) -> None:
        super().__init__()
        self.window, self.shifts = window, shifts
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop_path = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, H, W, C]`` to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y

    def _attend(self, x: Tensor) -> Tensor:
        """Pad to whole windows, shift them, attend, and undo both."""
        sizes = _sizes(x)
        fitting = [min(w, size) for w, size in zip(self.window, sizes, strict=True)]
        # An axis of one window is not shifted.
        shift = [
            w // 2 if self.shifts and size > w else 0
            for w, size in zip(self.window, sizes, strict=True)
        ]
        padded = [ceil(size / w) * w for size, w in zip(sizes, fitting, strict=True)]
        more = [whole - size for whole, size in zip(padded, sizes, strict=True)]
        y = pad(x, (0, 0, 0, more[2], 0, more[1], 0, 0, 0, more[0]))
        mask = None
        if any(shift):
            y = y.roll([-s for s in shift], (0, 2, 3))
            mask = _mask(padded, fitting, shift, x)
        y = _joined(self.attn(_windows(y, fitting), mask), padded, fitting)
        if any(shift):
            y = y.roll(shift, (0, 2, 3))
        return y[: sizes[0], :, : sizes[1], : sizes[2]]


def _sizes(x: Tensor) -> list[int]:
    """Steps, rows and columns of ``[T, N, H, W, C]``."""
    return [x.shape[0], x.shape[2], x.shape[3]]


def _windows(x: Tensor, window: list[int]) -> Tensor:
    """``[T, N, H, W, C]`` to ``[N, windows, L, C]``."""
    for axis, size in zip((3, 2, 0), reversed(window), strict=True):
        x = x.unflatten(axis, (-1, size))  # type: ignore[no-untyped-call]
    # [T/d, d, N, H/h, h, W/w, w, C]
    return x.permute(2, 0, 3, 5, 1, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def _joined(x: Tensor, sizes: list[int], window: list[int]) -> Tensor:
    """``[N, windows, L, C]`` back to ``[T, N, H, W, C]``."""
    counts = [size // w for size, w in zip(sizes, window, strict=True)]
    x = x.unflatten(2, window).unflatten(1, counts)  # type: ignore[no-untyped-call]
    return x.permute(1, 4, 0, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(0, 1)


def _mask(sizes: list[int], window: list[int], shift: list[int], like: Tensor) -> Tensor:
    """-100 between tokens of a shifted window that are no neighbours, ``[windows, 1, L, L]``."""
    region = torch.zeros(1, 1, 1, device=like.device, dtype=torch.long)
    for axis, (size, w, s) in enumerate(zip(sizes, window, shift, strict=True)):
        place = torch.arange(size, device=like.device)
        part = (place >= size - w).long() + (place >= size - s).long()
        region = 3 * region + part.view([-1 if i == axis else 1 for i in range(3)])
    inside = _windows(region[:, None, ..., None], window)[0, ..., 0]
    return (inside[:, None, None, :] != inside[:, None, :, None]).to(like.dtype) * -100.0


class PatchMerging(nn.Module):
    """Four neighbouring tokens of a map to one of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, H, W, C]`` to ``[T, N, ceil(H / 2), ceil(W / 2), 2 C]``."""
        x = pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        four = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(four, -1)))
        return merged


class SwinStages(nn.Module):
    """The stages of a Swin transformer; each but the first starts with half the map's sides.

    Args:
        dim: channels of the first stage; each later one has twice as many.
        depths: blocks of each stage; every second one shifts its windows by half.
        heads: of each stage; divide its channels.
        window: steps, rows and columns.
        drop_path: stochastic depth of the last block; earlier ones have less, the first none.

    >>> stages = SwinStages(8, (2, 2), (1, 2), (2, 3, 3))
    >>> [tuple(x.shape) for x in stages(torch.rand(4, 1, 6, 7, 8))]
    [(4, 1, 6, 7, 8), (4, 1, 3, 4, 16)]
    """

    def __init__(
        self,
        dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: Window,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.widths = [dim << stage for stage in range(len(depths))]
        drops = torch.linspace(0.0, drop_path, sum(depths), device="cpu").tolist()
        starts = [sum(depths[:i]) for i in range(len(depths) + 1)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    SwinBlock(self.widths[i], heads[i], window, bool((n - a) % 2), drops[n])
                    for n in range(a, b)
                )
            )
            for i, (a, b) in enumerate(pairwise(starts))
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in self.widths[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Tokens ``[T, N, H, W, dim]`` to what each stage puts out."""
        outputs = [self.stages[0](x)]
        for stage, merge in zip(list(self.stages)[1:], self.merges, strict=True):
            outputs.append(stage(merge(outputs[-1])))
        return outputs
