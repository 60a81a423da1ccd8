"""Masked Spiking Transformer: the ANN that is trained with QCFS and then converted.

A Swin transformer with batch norm and an activation everywhere a neuron is to stand. Source: Wang
et al. 2023, arXiv 2210.01208. Names of parameters are those of the released code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rheobase.layers.ann_activations import QCFS
from rheobase.layers.drop import DropPath
from rheobase.models._initialise import initialise_layers
from rheobase.models._inputs import as_sequence
from rheobase.models.registry import Family

__all__ = [
    "FAMILY",
    "PRESETS",
    "MaskedSpikes",
    "MaskedSpikingTransformer",
    "MstConfig",
    "TrainedMst",
    "mst_swin_t",
    "mst_tiny_cifar10",
]


@dataclass(frozen=True)
class MstConfig:
    """A masked spiking transformer.

    Args:
        image_size: pixels on a side.
        patch_size: pixels on a side of a patch.
        channels: of the image.
        dim: width of the first stage; each later one has twice as much.
        depths: blocks of each stage.
        heads: of each stage.
        window: tokens on a side of a window; blocks of odd number shift it by half.
        mlp_ratio: hidden width of the MLPs.
        num_classes: outputs.
        levels: L of the QCFS activations; None: plain ReLU, as before quantisation-aware training.
        threshold: of the QCFS activations, to begin with.
        masking: share of the spikes of queries, keys and attention scores that is masked, at
            random, in evaluation too, and without rescaling.
        mlp_norm: batch norms inside the MLPs (the released code has them for ImageNet only).
        drop_path: of the last block; earlier ones have less.
    """

    image_size: int = 224
    patch_size: int = 4
    channels: int = 3
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    levels: int | None = 16
    threshold: float = 2.0
    masking: float = 0.0
    mlp_norm: bool = True
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths={self.depths} and heads={self.heads} differ in length")
        if not 0.0 <= self.masking < 1.0:
            raise ValueError(f"masking is a share from 0 to below 1, got {self.masking}")
        for stage in range(len(self.depths)):
            size, remainder = divmod(self.image_size, self.patch_size * 2**stage)
            if remainder or size % min(size, self.window):
                raise ValueError(
                    f"image_size={self.image_size} does not give stage {stage} a whole number of "
                    f"windows of {self.window} tokens"
                )

    def size(self, stage: int) -> int:
        """Tokens on a side at a stage."""
        return self.image_size // (self.patch_size << stage)


def activation(config: MstConfig) -> nn.Module:
    """What a neuron replaces."""
    if config.levels is None:
        return nn.ReLU()
    return QCFS(config.levels, config.threshold)


class MaskedSpikes(nn.Module):
    """Random spike masking: each value is kept, as it is, with probability 1 - ``share``.

    Conversion takes it for linear, as what it does to one spike does not depend on others.
    """

    conversion_kind = "average"

    draws = True  # which conversion needs to know

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """``x``, some of it 0."""
        return x * torch.rand_like(x).gt(self.share)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.share}"


class TokenNorm(nn.BatchNorm1d):
    """Batch norm of the channels of tokens ``[N, L, C]``."""

    conversion_kind = "batch_norm"

    def forward(self, input: Tensor) -> Tensor:
        """``[N, L, C]`` to the same shape."""
        return super().forward(input.flatten(0, 1)).view_as(input)


class WindowAttention(nn.Module):
    """Attention inside windows, with an activation at queries, keys, values, scores and outputs."""

    relative_position_index: Tensor

    def __init__(self, config: MstConfig, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        bias = torch.zeros((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(bias, std=0.02))
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_if, self.k_if, self.v_if = (activation(config) for _ in range(3))
        self.attn_if, self.attn_v_if, self.proj_if = (activation(config) for _ in range(3))
        masked = config.masking > 0.0
        self.mask = MaskedSpikes(config.masking) if masked else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.softmax = nn.Softmax(-1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Windows ``[M, L, C]`` and what is added to scores, ``[windows, L, L]``."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.mask(self.q_if(q)), self.mask(self.k_if(k))
        scores = self.mask(self.attn_if(torch.matmul(q, k.transpose(-2, -1)) * self.scale))
        scores = scores + self.position_bias()
        if mask is not None:
            apart = scores.unflatten(0, (-1, mask.shape[0])) + mask.unsqueeze(1)
            scores = apart.flatten(0, 1)
        context = torch.matmul(self.softmax(scores), self.v_if(v)).transpose(1, 2).flatten(2)
        y: Tensor = self.proj_if(self.proj(self.attn_v_if(context)))
        return y

    def position_bias(self) -> Tensor:
        """``[heads, L, L]``."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)


def _relative_positions(window: int) -> Tensor:
    """Row of the table for each pair of tokens of a window, ``[L, L]``."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


class MLP(nn.Module):
    """Two linear layers, each with norm and activation."""

    def __init__(self, config: MstConfig, dim: int) -> None:
        super().__init__()
        hidden = int(config.mlp_ratio * dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.norm1 = TokenNorm(hidden) if config.mlp_norm else nn.Identity()
        self.fc1_if = activation(config)
        self.fc2 = nn.Linear(hidden, dim)
        self.norm2 = TokenNorm(dim) if config.mlp_norm else nn.Identity()
        self.fc2_if = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]`` to the same shape."""
        x = self.fc1_if(self.norm1(self.fc1(x)))
        y: Tensor = self.fc2_if(self.norm2(self.fc2(x)))
        return y


class Block(nn.Module):
    """Window attention, then MLP; the stream of the MLP starts behind its norm."""

    attn_mask: Tensor | None

    def __init__(self, config: MstConfig, stage: int, number: int, drop: float) -> None:
        super().__init__()
        dim, self.size = config.dim * 2**stage, config.size(stage)
        self.window = min(config.window, self.size)
        self.shift = config.window // 2 if number % 2 and self.size > config.window else 0
        self.norm1 = TokenNorm(dim)
        self.shortcut1_if = activation(config)
        self.attn = WindowAttention(config, dim, config.heads[stage], self.window)
        self.drop_path = DropPath(drop) if drop > 0.0 else nn.Identity()
        self.norm2 = TokenNorm(dim)
        self.shortcut2_if = activation(config)
        self.mlp = MLP(config, dim)
        mask = _shift_mask(self.size, self.window, self.shift) if self.shift else None
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]`` to the same shape."""
        y = self.shortcut1_if(self.norm1(x)).unflatten(1, (self.size, self.size))
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = _joined(self.attn(_windows(y, self.window), self.attn_mask), self.size, self.window)
        x = x + self._dropped(torch.roll(y, (self.shift, self.shift), (1, 2)).flatten(1, 2))
        x = self.norm2(x)
        return x + self._dropped(self.mlp(self.shortcut2_if(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        """Stochastic depth, whose layer takes ``[T, N, ...]``."""
        y: Tensor = self.drop_path(x.unsqueeze(0))
        return y.squeeze(0)


def _windows(x: Tensor, window: int) -> Tensor:
    """``[N, H, W, C]`` to windows ``[N * windows, L, C]``."""
    x = torch.unflatten(torch.unflatten(x, 2, (-1, window)), 1, (-1, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _joined(x: Tensor, size: int, window: int) -> Tensor:
    """Windows ``[N * windows, L, C]`` to ``[N, H, W, C]``."""
    side = size // window
    x = torch.unflatten(torch.unflatten(x, 0, (-1, side, side)), 3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shift_mask(size: int, window: int, shift: int) -> Tensor:
    """-100 between tokens of a shifted window that are no neighbours, ``[windows, L, L]``."""
    place = torch.arange(size)
    region = (place >= size - window).long() + (place >= size - shift).long()
    regions = (3 * region[:, None] + region[None, :]).view(1, size, size, 1)
    inside = _windows(regions, window).squeeze(-1)
    return (inside[:, None, :] != inside[:, :, None]) * -100.0


class Merging(nn.Module):
    """Four neighbouring tokens to one of twice the width."""

    def __init__(self, config: MstConfig, stage: int) -> None:
        super().__init__()
        dim, self.size = config.dim * 2**stage, config.size(stage)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = TokenNorm(4 * dim)
        self.reduction_if = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]`` to ``[N, L / 4, 2 C]``."""
        x = torch.unflatten(x, 1, (self.size // 2, 2, self.size // 2, 2))
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
        y: Tensor = self.reduction_if(self.reduction(self.norm(x)))
        return y


class Stage(nn.Module):
    """Blocks of one resolution, then the step to the next."""

    def __init__(self, config: MstConfig, stage: int, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(config, stage, number, drop) for number, drop in enumerate(drops))
        )
        last = stage == len(config.depths) - 1
        self.downsample = nn.Identity() if last else Merging(config, stage)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, C]`` to the next stage's tokens."""
        y: Tensor = self.downsample(self.blocks(x))
        return y


class PatchEmbed(nn.Module):
    """``[N, C, H, W]`` to one token a patch."""

    def __init__(self, config: MstConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.channels, config.dim, config.patch_size, config.patch_size)
        self.norm = TokenNorm(config.dim)
        self.proj_if = activation(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, patches, dim]``."""
        y: Tensor = self.proj_if(self.norm(self.proj(x).flatten(2).transpose(1, 2)))
        return y


class MaskedSpikingTransformer(nn.Module):
    """The ANN; ``convert(net, images, recipe="mst", T=...)`` makes the spiking network.

    >>> config = MstConfig(image_size=16, dim=8, depths=(1,), heads=(2,), window=4, num_classes=5)
    >>> MaskedSpikingTransformer(config).eval()(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: MstConfig) -> None:
        super().__init__()
        self.config = config
        count = sum(config.depths)
        drops = [config.drop_path * number / max(count - 1, 1) for number in range(count)]
        self.patch_embed = PatchEmbed(config)
        stages = []
        for stage, depth in enumerate(config.depths):
            stages.append(Stage(config, stage, drops[:depth]))
            drops = drops[depth:]
        self.layers = nn.Sequential(*stages)
        width = config.dim * 2 ** (len(config.depths) - 1)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.num_classes)
        initialise_layers(self, nn.Linear)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images: ``[N, C, H, W]`` to ``[N, num_classes]``."""
        x = self.norm(self.layers(self.patch_embed(x)))
        logits: Tensor = self.head(x.mean(1))
        return logits


class TrainedMst(MaskedSpikingTransformer):
    """`MaskedSpikingTransformer` with an axis of one time step, as the training loop takes it.

    >>> config = MstConfig(image_size=16, dim=8, depths=(1,), heads=(2,), window=4, num_classes=5)
    >>> TrainedMst(config).eval()(torch.rand(2, 3, 16, 16)).shape
    torch.Size([1, 2, 5])
    """

    T = 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``[N, C, H, W]`` as ``[1, N, classes]``; of frames, each by itself.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or sides, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=1, channels=config.channels, size=config.image_size)
        logits = super().forward(x.flatten(0, 1))
        return logits.unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call,no-any-return]


PRESETS: dict[str, MstConfig] = {
    # Published; the released code has 28,332,514 parameters before the activations'.
    "mst_swin_t": MstConfig(),
    # What CPU cores train in minutes.
    "mst_tiny_cifar10": MstConfig(
        image_size=32,
        patch_size=2,
        dim=32,
        depths=(2, 2),
        heads=(2, 4),
        window=4,
        mlp_ratio=2.0,
        num_classes=10,
        drop_path=0.0,
    ),
}

FAMILY = Family("mst", network=TrainedMst, presets=PRESETS)


def mst_swin_t() -> MaskedSpikingTransformer:
    """The published size, as it is converted."""
    return MaskedSpikingTransformer(PRESETS["mst_swin_t"])


def mst_tiny_cifar10() -> MaskedSpikingTransformer:
    """The tiny one, as it is converted."""
    return MaskedSpikingTransformer(PRESETS["mst_tiny_cifar10"])
