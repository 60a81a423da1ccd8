"""The ordinary twin of a Spikformer: same stem, widths and depth, no time, no spikes.

Softmax attention scaled by 1/sqrt(d) in the place of spiking self-attention, GELU in the place of
the neurons of the stem and of the hidden layer, and nothing in the place of the others, as in a
vision transformer with batch norm. It has exactly the parameters of the Spikformer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron
from rheobase.models import spikformer
from rheobase.models._inputs import as_sequence
from rheobase.models.registry import Family
from rheobase.models.spikformer import SpikformerConfig, Stem

__all__ = ["FAMILY", "PRESETS", "SoftmaxAttention", "SpikformerANN"]


class SoftmaxAttention(nn.Module):
    """Multi-head attention over the pixels (tokens) of ``[T, N, C, H, W]``."""

    def __init__(self, config: SpikformerConfig) -> None:
        super().__init__()
        bias = config.token_layers == "linear"
        self.heads = config.heads
        self.q = _linear(config.dim, config.dim, bias)
        self.k = _linear(config.dim, config.dim, bias)
        self.v = _linear(config.dim, config.dim, bias)
        self.proj = _linear(config.dim, config.dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        q, k, v = (self._split(layer(x)) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.mT.reshape(x.shape))
        return out

    def attention(self, x: Tensor) -> Tensor:
        """The attention map of input ``x``, ``[T, N, heads, queries, keys]``."""
        q, k = self._split(self.q(x)), self._split(self.k(x))
        scores: Tensor = q @ k.mT / q.shape[-1] ** 0.5
        return scores.softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, heads, tokens, d]``."""
        heads: Tensor = x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads, -1).mT
        return heads


class TwinBlock(nn.Module):
    """Attention, then MLP, each added to the stream."""

    def __init__(self, config: SpikformerConfig) -> None:
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.attn = SoftmaxAttention(config)
        self.mlp = nn.Sequential(
            ConvNormNeuron(config.dim, hidden, nn.GELU(), bias=True),
            _linear(hidden, config.dim, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = x + self.attn(x)
        x = x + self.mlp(x)
        return x


class SpikformerANN(nn.Module):
    """The ordinary twin of `rheobase.models.spikformer.Spikformer`.

    Args:
        config: the Spikformer's; ``T`` and ``scale`` mean nothing here.

    >>> import torch
    >>> net = SpikformerANN(SpikformerConfig(depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    T = 1

    def __init__(self, config: SpikformerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config, nn.GELU)
        self.blocks = nn.ModuleList(TwinBlock(config) for _ in range(config.depth))
        self.head = nn.Linear(config.dim, config.num_classes)
        spikformer.initialise(self, config)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``[N, C, H, W]`` as ``[1, N, num_classes]``.

        A sequence ``[T, N, C, H, W]`` gives ``[T, N, num_classes]``, each frame by itself.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or image size, or an empty input.
        """
        x = self.stem(self._sequence(x))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """The attention map of every block, each ``[T, N, heads, tokens, tokens]``."""
        x = self.stem(self._sequence(x))
        maps = []
        for block in self.blocks:
            assert isinstance(block, TwinBlock)
            maps.append(block.attn.attention(x))
            x = block(x)
        return maps

    def _sequence(self, x: Tensor) -> Tensor:
        config = self.config
        return as_sequence(x, steps=1, channels=config.channels, divisor=config.patch_size)


def _linear(channels: int, width: int, bias: bool) -> ConvNormNeuron:
    return ConvNormNeuron(channels, width, nn.Identity(), bias=bias)


PRESETS: dict[str, SpikformerConfig] = {
    name.replace("spikformer", "spikformer_ann"): config
    for name, config in spikformer.PRESETS.items()
}

FAMILY = Family("spikformer_ann", network=SpikformerANN, presets=PRESETS)
