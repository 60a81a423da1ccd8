"""STS-Transformer: spiking attention over space and time at once, for event data.

Wang et al. 2023, "Spatial-Temporal Self-Attention for Asynchronous Spiking Neural Networks", IJCAI
2023, p. 3085; released code: ppppps/STSA_4_Asyn_SNN (DVS128 Gesture). A token attends to the tokens
of its own step and of all earlier ones, with a learnt bias for every offset in time and space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron, SpikingMlp, over_time, sew_join
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import as_sequence, check_choice, check_sizes
from rheobase.models._names import depth_of, need_layers, split_units
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import Triangular

__all__ = ["FAMILY", "PRESETS", "Block", "STSAttention", "STSTransformer", "STSTransformerConfig"]

PATCH = 16


@dataclass(frozen=True)
class STSTransformerConfig:
    """One STS-Transformer.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 16.
        heads: attention heads; divides ``dim``.
        image_size: side of the frames, a multiple of 16.
        channels: input channels.
        num_classes: outputs.
        T: most time steps of a sequence.
        mlp_ratio: hidden width of the MLP over ``dim``.
        dropout: of the MLP's currents.
        compat: "official": queries, keys and values see tokens whose axes of time, batch and
            channel were mixed up (a permutation is missing in the released code, so that what an
            image gives depends on its batch, and on later steps); None: they see the tokens.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int
    dim: int
    heads: int = 1
    image_size: int = 128
    channels: int = 2
    num_classes: int = 11
    T: int = 10
    mlp_ratio: float = 1.0
    dropout: float = 0.3
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        check_sizes(
            dim=self.dim, dim_multiple=16, heads=self.heads, image_size=self.image_size,
            patch_size=PATCH, depth=self.depth, channels=self.channels,
            num_classes=self.num_classes, T=self.T, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip


def sts_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: the membrane is halved, the input added whole; triangular surrogate.

    It fires above the threshold, not at it, and the gradient flows through its reset.
    """
    defaults = {"tau": 2.0, "decay_input": False, "strict": True, "surrogate": Triangular(1.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class Stem(nn.Module):
    """Four convolutions that halve the frame, and one more beside the identity."""

    def __init__(self, config: STSTransformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim = config.dim
        self.stages = nn.ModuleList(
            ConvNormNeuron(a, b, make_neuron(), kernel_size=3)
            for a, b in pairwise([config.channels, dim // 16, dim // 8, dim // 4, dim])
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.position = ConvNormNeuron(dim, dim, make_neuron(), kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, dim, H / 16, W / 16]``, of 0, 1 and 2."""
        for stage in self.stages:
            x = over_time(stage(x), self.pool)
        return sew_join(self.position(x), x, "ADD")


class STSAttention(nn.Module):
    r"""Spatial-temporal self-attention (STSA) over all tokens of all steps.

    .. math:: y = ((Q K^\top + B) \odot M) V / 8

    B is a learnt bias of the offset in time, height and width, M is 1 where the key is not later
    than the query. There is no softmax, so M multiplies.
    """

    # Causal without compat, but keys of earlier calls are not kept.
    causal = False
    offsets: Tensor

    def __init__(self, config: STSTransformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, side = config.dim, config.image_size // PATCH
        self.heads, self.compat = config.heads, config.compat
        self.qkv = ConvNormNeuron(dim, 3 * dim, make_neuron())
        self.bias = nn.Parameter(torch.empty((2 * config.T - 1) * (2 * side - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("offsets", _offsets(config.T, side), persistent=False)
        self.neuron = make_neuron()
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        shape = x.shape
        qkv = self.qkv(self._mixed_up(x) if self.compat == "official" else x)
        q, k, v = (self._tokens(z) for z in qkv.chunk(3, dim=2))
        tokens = q.shape[-2]
        offsets = self.offsets[:tokens, :tokens]
        bias = self.bias[offsets.flatten()].T.reshape(-1, tokens, tokens)
        y = ((q @ k.mT + bias) * _not_later(shape[0], tokens, q) @ v) * 0.125
        y = y.transpose(1, 2).reshape(shape[1], shape[0], -1, shape[2])
        spikes: Tensor = self.proj(self.neuron(y.permute(1, 0, 3, 2).reshape(shape)))
        return spikes

    def _tokens(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [N, heads, T * tokens, d]``."""
        steps, batch = x.shape[:2]
        heads = x.reshape(steps, batch, self.heads, x.shape[2] // self.heads, -1)
        return heads.permute(1, 2, 0, 4, 3).flatten(2, 3)

    @staticmethod
    def _mixed_up(x: Tensor) -> Tensor:
        steps, batch, channels = x.shape[:3]
        y = x.contiguous().view(batch, channels, steps, *x.shape[3:])
        return y.permute(2, 0, 1, 3, 4)


def _offsets(steps: int, side: int) -> Tensor:
    """A number for the offset of each token to each, ``[tokens, tokens]``."""
    axes = [torch.arange(n) for n in (steps, side, side)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    t, h, w = place.unsqueeze(2) - place.unsqueeze(1)
    rows = 2 * side - 1
    number: Tensor = ((t + steps - 1) * rows + h + side - 1) * rows + w + side - 1
    return number


def _not_later(steps: int, tokens: int, like: Tensor) -> Tensor:
    """1 where the step of the key (column) is not later than that of the query (row)."""
    step = torch.arange(steps, device=like.device).repeat_interleave(tokens // steps)
    return (step <= step.unsqueeze(1)).to(like.dtype)


class Mlp(SpikingMlp):
    """Two layers on every token; their currents are dropped at random."""

    def __init__(self, config: STSTransformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__(config.dim, int(config.dim * config.mlp_ratio), make_neuron)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        for unit in (self.fc1, self.fc2):
            x = over_time(x, unit.conv, self.dropout, unit.norm, unit.neuron)
        return x


class Block(nn.Module):
    """Attention, then MLP, each added to a stream of small integers."""

    def __init__(self, config: STSTransformerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.attn = STSAttention(config, make_neuron)
        self.mlp = Mlp(config, make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(self.attn(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")


class STSTransformer(nn.Module):
    """STS-Transformer.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = STSTransformer(STSTransformerConfig(depth=1, dim=16, image_size=32, T=4))
    >>> net(torch.rand(4, 2, 2, 32, 32)).shape
    torch.Size([4, 2, 11])
    """

    def __init__(self, config: STSTransformerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or sts_neuron()
        self.config = config
        self.T = config.T
        self.stem = Stem(config, make_neuron)
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; the paper trains each of them (TET).

        Args:
            x: a sequence ``[t, N, C, H, W]`` of at most T steps, or images ``[N, C, H, W]``,
                repeated over T; of the size that the network was built for.

        Returns:
            ``[t, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or image size, more than T steps, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, divisor=PATCH)
        side = config.image_size
        if x.shape[0] > config.T or x.shape[-2:] != (side, side):
            raise ValueError(
                f"the network has position biases for {config.T} steps of {side} x {side} pixels, "
                f"got {list(x.shape)}; build it with T={x.shape[0]}, image_size={x.shape[-1]}"
            )
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


PRESETS: dict[str, STSTransformerConfig] = {
    "sts_transformer_dvs128_2_256": STSTransformerConfig(depth=2, dim=256),
    "sts_transformer_dvs128_2_256_t16": STSTransformerConfig(depth=2, dim=256, T=16),
}


_NEVER_USED = re.compile(r"\.attn\.(to_qkv_|mask_mat|relative_position_index)")


def _rename(key: str) -> str | None:
    if _NEVER_USED.search(key):
        return None
    key = split_units(key).replace("attn.relative_position_bias_table", "attn.bias")
    key = key.replace("attn.attn.neuron", "attn.neuron").replace("classification.", "head.")
    key = key.replace("conv_stem.block5.", "stem.position.")
    key = re.sub(r"^conv_stem\.block(\d)\.", lambda m: f"stem.stages.{int(m[1]) - 1}.", key)
    return re.sub(r"^block\.", "blocks.", key)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> STSTransformerConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(ours, "an STS-Transformer", "stem.stages.0.conv", "blocks.0.attn.bias", "head")
    num_classes, dim = ours["head.weight"].shape
    offsets, heads = ours["blocks.0.attn.bias"].shape
    image_size = kwargs.get("img_size_h", 128)
    return STSTransformerConfig(
        depth=depth_of(ours, "blocks"),
        dim=dim,
        heads=heads,
        image_size=image_size,
        channels=ours["stem.stages.0.conv.weight"].shape[1],
        num_classes=num_classes,
        T=(offsets // (2 * image_size // PATCH - 1) ** 2 + 1) // 2,
        mlp_ratio=ours["blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
        dropout=kwargs.get("forward_drop_rate", 0.3),
    )


FAMILY = Family(
    "sts_transformer",
    network=STSTransformer,
    presets=PRESETS,
    neuron=sts_neuron,
    official={"sts_transformer": Official(_config, _rename)},
)
