"""The vision transformer, a source of conversion: plain, or with the quantisers of SpikeZIP-TF.

Names of parameters are those of timm, so its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rheobase.layers.lsq import quantiser

__all__ = ["PRESETS", "VisionTransformer", "VitConfig", "from_spikezip"]


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer.

    Args:
        image_size: pixels on a side, a multiple of ``patch_size``.
        patch_size: pixels on a side of a patch.
        channels: of the image.
        dim: width, a multiple of ``heads``.
        depth: blocks.
        heads: of the attention.
        hidden: width of the hidden layer of the MLP; None: four times ``dim``.
        num_classes: outputs.
        activation: of the hidden layer.
        norm_eps: of the layer norms.
        levels: of the quantisers of SpikeZIP-TF; None: there are none. The activation is then
            "relu".
    """

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    dim: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int | None = None
    num_classes: int = 1000
    activation: Literal["gelu", "relu"] = "gelu"
    norm_eps: float = 1e-6
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is no multiple of patch_size={self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")
        if self.levels is not None and self.activation != "relu":
            raise ValueError(
                "the hidden layer's quantiser is unsigned, so a quantised network needs "
                f'activation="relu", got {self.activation!r}'
            )


class PatchEmbed(nn.Module):
    """``[N, C, H, W]`` to one token a patch, ``[N, patches, dim]``."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.channels, config.dim, config.patch_size, config.patch_size)
        self.quantise = quantiser(config.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, patches, dim]``."""
        y: Tensor = self.quantise(self.proj(x))
        return y.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Softmax attention."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = (config.dim // config.heads) ** -0.5
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.quantise_q = quantiser(config.levels)
        self.quantise_k = quantiser(config.levels)
        self.quantise_v = quantiser(config.levels)
        self.softmax = nn.Softmax(-1)
        self.quantise_attention = quantiser(config.levels, symmetric=False)
        self.quantise_context = quantiser(config.levels)
        self.proj = nn.Linear(config.dim, config.dim)
        self.quantise_proj = quantiser(config.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, tokens, dim]`` to the same shape."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = self.quantise_q(q), self.quantise_k(k), self.quantise_v(v)
        scores = torch.matmul(q, k.transpose(-2, -1)) * self.scale
        attention = self.quantise_attention(self.softmax(scores))
        context = self.quantise_context(torch.matmul(attention, v))
        y: Tensor = self.quantise_proj(self.proj(context.transpose(1, 2).flatten(2)))
        return y


class MLP(nn.Module):
    """Two linear layers and an activation between them."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        hidden = 4 * config.dim if config.hidden is None else config.hidden
        self.fc1 = nn.Linear(config.dim, hidden)
        self.quantise_hidden = quantiser(config.levels, symmetric=False)
        self.act = nn.GELU() if config.activation == "gelu" else nn.ReLU()
        self.fc2 = nn.Linear(hidden, config.dim)
        self.quantise_out = quantiser(config.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, tokens, dim]`` to the same shape."""
        y: Tensor = self.quantise_out(self.fc2(self.act(self.quantise_hidden(self.fc1(x)))))
        return y


class Block(nn.Module):
    """Attention, then MLP, each behind a norm and added to the stream."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.quantise1 = quantiser(config.levels)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.quantise2 = quantiser(config.levels)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, tokens, dim]`` to the same shape."""
        x = x + self.attn(self.quantise1(self.norm1(x)))
        x = x + self.mlp(self.quantise2(self.norm2(x)))
        return x


class VisionTransformer(nn.Module):
    """A vision transformer with class token. Source: Dosovitskiy et al. 2021, arXiv 2010.11929.

    >>> net = VisionTransformer(VitConfig(image_size=16, patch_size=8, dim=8, depth=1, heads=2))
    >>> net(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 1000])
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        patches = (config.image_size // config.patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, config.dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.quantise_out = quantiser(config.levels)
        self.head = nn.Linear(config.dim, config.num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images: ``[N, C, H, W]`` to ``[N, num_classes]``."""
        tokens = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        x = self.blocks(x + self.pos_embed)
        x = self.quantise_out(self.norm(x))
        logits: Tensor = self.head(x[:, 0])
        return logits


def from_spikezip(state: Mapping[str, Tensor], *, heads: int, levels: int) -> VisionTransformer:
    """The quantised network of a checkpoint of SpikeZIP-TF.

    Args:
        state: the official state dict of the network behind quantisation-aware training.
        heads: of the attention, which the weights do not show.
        levels: of its quantisers.

    Returns:
        the network with these weights, in their dtype; convert it by ``recipe="spikezip_tf"``.

    Raises:
        ValueError: keys are missing or unknown (they are named).
    """
    renamed = {_spikezip_name(key): value for key, value in state.items()}
    weight = renamed.get("patch_embed.proj.weight")
    if weight is None:
        raise ValueError(
            "this is no state dict of a quantised SpikeZIP-TF vision transformer: it has no "
            f"patch_embed.proj.0.weight; its keys begin {sorted(state)[:4]}"
        )
    dim, channels, patch, _ = weight.shape
    config = VitConfig(
        image_size=patch * round((renamed["pos_embed"].shape[1] - 1) ** 0.5),
        patch_size=patch,
        channels=channels,
        dim=dim,
        depth=1 + max(int(key.split(".")[1]) for key in renamed if key.startswith("blocks.")),
        heads=heads,
        hidden=renamed["blocks.0.mlp.fc1.weight"].shape[0],
        num_classes=renamed["head.weight"].shape[0],
        activation="relu",
        levels=levels,
    )
    net = VisionTransformer(config).to(weight.dtype)
    missing, unknown = net.load_state_dict(renamed, strict=False)
    if missing or unknown:
        raise ValueError(f"this checkpoint lacks {missing} and has unknown keys {unknown}")
    return net


_SPIKEZIP = (
    ("patch_embed.proj.0.", "patch_embed.proj."),
    ("patch_embed.proj.1.s", "patch_embed.quantise.scale"),
    (".norm1.0.", ".norm1."),
    (".norm1.1.s", ".quantise1.scale"),
    (".norm2.0.", ".norm2."),
    (".norm2.1.s", ".quantise2.scale"),
    ("norm.0.", "norm."),
    ("norm.1.s", "quantise_out.scale"),
    (".quan_q.s", ".quantise_q.scale"),
    (".quan_k.s", ".quantise_k.scale"),
    (".quan_v.s", ".quantise_v.scale"),
    (".after_attn_quan.s", ".quantise_context.scale"),
    (".attn_quan.s", ".quantise_attention.scale"),
    (".quan_proj.s", ".quantise_proj.scale"),
    (".act.0.s", ".quantise_hidden.scale"),
    (".fc2.0.", ".fc2."),
    (".fc2.1.s", ".quantise_out.scale"),
)


def _spikezip_name(key: str) -> str:
    for theirs, ours in _SPIKEZIP:
        if theirs in key:
            return key.replace(theirs, ours)
    return key


def _initialise(net: VisionTransformer) -> None:
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(net.pos_embed, std=0.02)
    nn.init.normal_(net.cls_token, std=1e-6)


PRESETS: dict[str, VitConfig] = {
    "vit_small_patch16_224": VitConfig(),
    "vit_base_patch16_224": VitConfig(dim=768, heads=12),
    "vit_large_patch16_224": VitConfig(dim=1024, depth=24, heads=16),
}
"""By name in timm; the sizes of SpikeZIP-TF and, with ``activation="gelu"``, of ECMT."""
