"""The vision transformer that was converted first: attention and ReLUs without any norm.

The ANN for ``recipe="spiking_transformer_2021"`` of `rheobase.convert`: Mueller et al. 2021,
"Spiking Transformer Networks: A Rate Coded Approach for Processing Sequential Data", ICSAI. The
paper's text was not at hand; sizes, layers and training are those of the released code
(vvvityaaa/transformer-ann2snn) and of the report in it, whose ANN reads 97.99 % of MNIST, 97.16 %
after 50 steps of spikes. That code divides the weights of hidden layers so that spikes are of size
1, but not what is added to them, so what it converts is no longer the ANN; here spikes carry their
size, and the mean over time nears the ANN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rheobase.models._inputs import as_sequence, check_choice
from rheobase.models.registry import Family

__all__ = [
    "FAMILY",
    "PRESETS",
    "RateCodedViT",
    "RateCodedViTConfig",
    "TrainedRateCodedViT",
    "rate_coded_vit_mnist",
]


@dataclass(frozen=True)
class RateCodedViTConfig:
    """One such transformer; the defaults are the released ones, for digits.

    Args:
        image_size: pixels on a side, a multiple of ``patch_size``.
        patch_size: pixels on a side of a patch.
        channels: of the image.
        dim: width, a multiple of ``heads``.
        depth: blocks.
        heads: of the attention.
        hidden: width of the hidden layers.
        num_classes: outputs.
        compat: None: every block's attention is added to what came in, as in a transformer;
            "official": to the embedded patches, of whichever block, as in the released code.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    image_size: int = 28
    patch_size: int = 4
    channels: int = 1
    dim: int = 64
    depth: int = 4
    heads: int = 4
    hidden: int = 128
    num_classes: int = 10
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is no multiple of patch_size={self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")

    @property
    def tokens(self) -> int:
        """Patches, and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


class Block(nn.Module):
    """Softmax attention, then an MLP, each added to a stream."""

    def __init__(self, config: RateCodedViTConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.dim, config.heads, batch_first=True)
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """``[N, tokens, dim]`` and what attention is added to, to the same shape."""
        x = shortcut + self.attention(x, x, x, need_weights=False)[0]
        y: Tensor = self.fc2(self.relu(self.fc1(x)))
        return x + y


class RateCodedViT(nn.Module):
    """The ANN; ``convert(net, images, recipe="spiking_transformer_2021", T=50)`` makes it spike.

    >>> net = RateCodedViT(RateCodedViTConfig(depth=1))
    >>> net(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: RateCodedViTConfig) -> None:
        super().__init__()
        self.config = config
        pixels = config.channels * config.patch_size**2
        self.unfold = nn.Unfold(config.patch_size, stride=config.patch_size)
        self.embed = nn.Linear(pixels, config.dim)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.positions = nn.Parameter(torch.empty(1, config.tokens, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.fc = nn.Linear(config.tokens * config.dim, config.hidden)
        self.relu = nn.ReLU()
        self.head = nn.Linear(config.hidden, config.num_classes)
        for weight in (m.weight for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.xavier_uniform_(weight)  # Keras's default
        for embedding in (self.class_token, self.positions):
            nn.init.xavier_uniform_(embedding[0])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images: ``[N, C, H, W]`` to ``[N, num_classes]``."""
        tokens = self.embed(self.unfold(x).transpose(1, 2))
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = x = tokens + self.positions
        for block in self.blocks:
            x = block(x, tokens if self.config.compat == "official" else x)
        logits: Tensor = self.head(self.relu(self.fc(x.flatten(1))))
        return logits


class TrainedRateCodedViT(RateCodedViT):
    """`RateCodedViT` with an axis of one time step, as the training loop takes it.

    >>> net = TrainedRateCodedViT(RateCodedViTConfig(depth=1))
    >>> net(torch.rand(2, 1, 28, 28)).shape
    torch.Size([1, 2, 10])
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


PRESETS: dict[str, RateCodedViTConfig] = {"rate_coded_vit_mnist": RateCodedViTConfig()}

FAMILY = Family("rate_coded_vit", network=TrainedRateCodedViT, presets=PRESETS)


def rate_coded_vit_mnist() -> RateCodedViT:
    """For MNIST, as it is converted."""
    return RateCodedViT(PRESETS["rate_coded_vit_mnist"])
