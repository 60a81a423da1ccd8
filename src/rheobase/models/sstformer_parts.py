"""The parts of SSTFormer: a spiking network for events, a memory transformer for frames, and more.

Wang et al. 2023, arXiv 2308.04369; `rheobase.models.sstformer` says what ``compat`` means.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from rheobase.layers import over_time
from rheobase.layers.deformable import DeformableConv2d
from rheobase.neurons import Lapicque

__all__ = [
    "EventEncoder",
    "EventEncoderConfig",
    "MemoryConfig",
    "MemoryTransformer",
    "beside",
    "conv_norm",
    "deconv_norm",
    "fusion",
]

Compat = Literal["official"] | None


@dataclass(frozen=True)
class EventEncoderConfig:
    """The spiking branch: channels of each stage, which halves the image; see `SSTFormerConfig`."""

    channels: int = 12
    widths: tuple[int, ...] = (64, 128, 256, 512)
    beta: float = 0.5
    v_threshold: float = 0.75
    compat: Compat = None


class EventStage(nn.Module):
    """Two convolutions with their neurons; the second halves the image."""

    def __init__(self, channels: int, width: int, config: EventEncoderConfig) -> None:
        super().__init__()
        swapped = config.compat == "official"
        beta, threshold = config.beta, config.v_threshold
        self.first = conv_norm(channels, width)
        self.first_neuron = Lapicque(beta, v_threshold=threshold, swapped=swapped)
        self.second = conv_norm(width, width)
        self.pool, self.norm = nn.MaxPool2d(2), nn.BatchNorm2d(width)
        self.second_neuron = Lapicque(beta, v_threshold=threshold, swapped=swapped)
        self.sends = 1 if swapped else 0  # membranes, or spikes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[T, N, channels, H, W]`` to what the next stage sees, and the currents' sum over T."""
        x = self.first_neuron(over_time(x, self.first))[self.sends]
        current = over_time(x, self.second, self.pool, self.norm)
        return self.second_neuron(current)[self.sends], current.sum(0)


class EventEncoder(nn.Module):
    """The spiking branch: stages of convolutions on events.

    >>> net = EventEncoder(EventEncoderConfig(channels=2, widths=(4, 8)))
    >>> [tuple(y.shape) for y in net(torch.rand(3, 1, 2, 16, 16))]
    [(1, 4, 8, 8), (1, 8, 4, 4)]
    """

    def __init__(self, config: EventEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(
            EventStage(a, b, config) for a, b in pairwise([config.channels, *config.widths])
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[T, N, channels, H, W]`` to each stage's currents summed over T, ``[N, C, H', W']``."""
        sums = []
        for stage in self.stages:
            x, total = stage(x)
            sums.append(total)
        return sums


@dataclass(frozen=True)
class MemoryConfig:
    """The frame branch: ``clip`` supports feed a memory, ``tokens`` of a query read it.

    ``dim`` is a multiple of ``tokens`` and of ``heads``.
    """

    dim: int = 4096
    heads: int = 8
    clip: int = 3
    tokens: int = 64
    compat: Compat = None

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % self.tokens:
            raise ValueError(f"heads and tokens must divide dim, got {self}")


class MemoryAttention(nn.Module):
    """Query tokens attend to memory and supports, which a GRU has read in order."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        dim, self.heads, self.compat = config.dim, config.heads, config.compat
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.kv, self.proj = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, dim)
        self.scale1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.scale2 = nn.Parameter(torch.full((dim,), 1e-5))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        """``[N, supports, dim]`` and ``[N, tokens, dim]`` to the shape of the latter."""
        support, _ = self.gru(support)
        x = query + self.scale1 * self._attend(self.norm1(query), self.norm2(support))
        y: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return y

    def _attend(self, query: Tensor, support: Tensor) -> Tensor:
        batch, tokens, dim = query.shape
        k, v = self.kv(support).reshape(batch, -1, 2, self.heads, dim // self.heads).unbind(2)
        if self.compat == "official":
            q, scale = query.reshape(batch, self.heads, tokens, -1), 128**-0.5
        else:
            q, scale = query.reshape(batch, tokens, self.heads, -1).transpose(1, 2), None
        y = scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), scale=scale)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(query.shape))
        return out


class MemoryTransformer(nn.Module):
    """The frame branch: a memory goes from clip to clip; the last clip sees the events too.

    >>> net = MemoryTransformer(MemoryConfig(dim=8, heads=2, clip=1, tokens=4))
    >>> net(torch.rand(2, 2 * 1 + 2 * 4 + 1, 8)).shape
    torch.Size([1, 2, 8])
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Parameter(torch.zeros(1, config.tokens, config.dim))
        self.attention1, self.attention2 = MemoryAttention(config), MemoryAttention(config)
        self.memory = nn.Linear(config.dim, config.dim // config.tokens)

    def forward(self, x: Tensor) -> Tensor:
        """The memory behind the last clip, ``[1, N, dim]``.

        Args:
            x: ``[N, clips * clip + clips * tokens + 1, dim]``: supports, queries, and one token of
                the events.

        Raises:
            ValueError: another number of tokens.
        """
        clip, tokens = self.config.clip, self.config.tokens
        clips, rest = divmod(x.shape[1] - 1, clip + tokens)
        if rest or clips < 1:
            raise ValueError(
                f"expected clips of {clip} supports and {tokens} query tokens, and one token more, "
                f"got {x.shape[1]} tokens"
            )
        supports, queries, event = x.tensor_split([clips * clip, x.shape[1] - 1], dim=1)
        memory = supports[:, :1]
        for i, (support, query) in enumerate(
            zip(supports.chunk(clips, 1), queries.chunk(clips, 1), strict=True)
        ):
            query = query + self.position
            if i < clips - 1:
                y = self.attention1(torch.cat([memory, support], 1), query)
            else:
                y = self.attention2(torch.cat([memory, support, event], 1), query)
            memory = self.memory(y).reshape(memory.shape)
        last: Tensor = memory.movedim(1, 0)
        return last


def conv_norm(channels: int, width: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and leaky ReLU."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.1))


def deconv_norm(channels: int, width: int) -> nn.Sequential:
    """A transposed convolution that doubles the sides, batch norm and leaky ReLU."""
    conv = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.1))


def fusion(width: int) -> nn.Sequential:
    """Five convolutions, all but the first deformable, with pooling behind the first two."""
    layers: list[nn.Module] = []
    for i in range(5):
        layers.append(
            DeformableConv2d(width, width) if i else nn.Conv2d(width, width, 3, padding=1)
        )
        layers.append(nn.ReLU())
        layers += [nn.GroupNorm(width, width)] if i < 4 else []
        layers += [nn.MaxPool2d(3, stride=2)] if i < 2 else []
    return nn.Sequential(*layers)


def beside(frames: Tensor, events: Tensor) -> Tensor:
    """Frames and events as one sequence.

    Args:
        frames: ``[T, N, 3, H, W]``.
        events: voxels of the same steps, ``[T, N, C, H', W']``, resized to the frames' (nearest).

    Returns:
        ``[T, N, 3 + C, H, W]``.

    Raises:
        ValueError: other shapes.

    >>> beside(torch.rand(4, 1, 3, 8, 8), torch.rand(4, 1, 2, 6, 5)).shape
    torch.Size([4, 1, 5, 8, 8])
    """
    if frames.dim() != 5 or events.dim() != 5 or frames.shape[:2] != events.shape[:2]:
        raise ValueError(
            "expected frames [T, N, 3, H, W] and events [T, N, C, H', W'] of the same T and N, got "
            f"{list(frames.shape)} and {list(events.shape)}"
        )
    size = list(frames.shape[-2:])
    return torch.cat([frames, over_time(events, lambda e: interpolate(e, size))], dim=2)
