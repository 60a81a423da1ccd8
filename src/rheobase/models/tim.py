"""TIM: a Spikformer for events whose queries look back in time.

Shen et al. 2024, "TIM: An Efficient Temporal Interaction Module for Spiking Transformer", arXiv
2401.11687. Released code: BrainCog-X/Brain-Cog, examples/TIM.

Where code and paper differ: the code names thresholds (0.3 and 0.5 in the module, 0.5 behind the
attention product) in an argument that its neuron does not have, so all run at 1. The neuron
behind the module then never fires, and queries are silent from the second step on.
``compat="official"`` is that; without it the thresholds are those named. A checkpoint keeps its
thresholds, so `load_official` needs no telling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import (
    SpikingMlp,
    SpikingSelfAttention,
    attention_product,
    sew_join,
    split_heads,
)
from rheobase.models._initialise import initialise_layer
from rheobase.models._inputs import check_choice
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn, split_units
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikformer import SpikformerConfig, Stem
from rheobase.neurons import DetachedLIF, neuron_factory
from rheobase.stateful import Stateful, streaming
from rheobase.surrogate import Sigmoid

__all__ = ["FAMILY", "PRESETS", "TIM", "TIMConfig", "TemporalInteraction"]

_NAMED = {"attention": 0.5, "look_back": 0.3, "mixed": 0.5}


@dataclass(frozen=True)
class TIMConfig:
    """One TIM Spikformer.

    Args:
        depth: number of blocks.
        dim: number of channels of a token, a multiple of 8.
        heads: attention heads; ``dim / heads`` must be the number of tokens, see
            `TemporalInteraction`.
        image_size: side of the frames, a multiple of 16.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        mlp_ratio: hidden width of the MLP over ``dim``.
        alpha: share of the past in a query.
        thresholds: of the neurons "attention" (behind the product), "look_back" and "mixed" (in
            the module); None: those that the code names.
        compat: "official" makes them 1, as the released code does, where none are given.

    Raises:
        ValueError: sizes that do not fit each other, or an ``alpha`` outside 0 to 1.
    """

    depth: int = 2
    dim: int = 256
    heads: int = 16
    image_size: int = 64
    channels: int = 2
    num_classes: int = 10
    T: int = 10
    mlp_ratio: float = 4.0
    alpha: float = 0.5
    thresholds: Mapping[str, float] | None = None
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        check_choice("compat", self.compat, (None, "official"))
        _ = self.stem  # its sizes are checked there
        tokens = (self.image_size // 16) ** 2
        if self.dim // self.heads != tokens:
            raise ValueError(
                f"TIM needs as many channels in a head as tokens: dim / heads = "
                f"{self.dim // self.heads}, tokens (image_size / 16)^2 = {tokens}; take "
                f"heads={max(1, self.dim // max(1, tokens))}"
            )
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha is a share, from 0 to 1, got {self.alpha}")

    @property
    def stem(self) -> SpikformerConfig:
        """The Spikformer whose stem it has."""
        return SpikformerConfig(
            self.depth, self.dim, self.heads, self.image_size, self.channels, self.num_classes,
            self.T, patch_size=16, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip

    def threshold(self, neuron: str) -> float:
        """The threshold of "attention", "look_back" or "mixed"."""
        if self.thresholds is not None:
            return self.thresholds[neuron]
        return 1.0 if self.compat == "official" else _NAMED[neuron]


def tim_neuron(**kwargs: Any) -> MakeNeuron:
    """The code's neuron: LIF, tau 2, no gradient through time, sigmoid surrogate, alpha 4."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(DetachedLIF, **(defaults | kwargs))


class TemporalInteraction(Stateful):
    r"""Queries mixed with those of the step before, on ``[T, N, heads, d, tokens]``.

    .. math:: Q'_0 = Q_0, \qquad
       Q'_t = \mathrm{SN}(\alpha\, \mathrm{SN}(W * Q'_{t-1}) + (1 - \alpha)\, Q_t)

    The convolution (5 wide) runs along the channels of a head, and mixes the tokens: as released,
    which is why there must be ``d`` tokens. Its neurons pass no gradient from step to step; the
    spikes do.

    Source: arXiv 2401.11687.
    """

    def __init__(self, config: TIMConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.alpha = config.alpha
        tokens = config.dim // config.heads
        self.conv = nn.Conv1d(tokens, tokens, 5, padding=2)
        self.look_back = make_neuron(v_threshold=config.threshold("look_back"))
        self.mixed = make_neuron(v_threshold=config.threshold("mixed"))

    def forward(self, q: Tensor) -> Tensor:
        """Spikes of the same shape."""
        past = self.carried
        mixed: list[Tensor] = []
        # Its two neurons are fed step by step: state is kept from one to the next.
        with nullcontext() if self._streams else streaming(nn.ModuleList(self.children())):
            for now in q.unbind(0):
                past = now if past is None else self._mix(past, now)
                mixed.append(past)
        if past is not None:
            self.carry(past)
        return torch.stack(mixed)

    def _mix(self, past: Tensor, now: Tensor) -> Tensor:
        tokens_first = past.flatten(0, 1).mT
        looked_back = self.conv(tokens_first).mT.reshape(past.shape)
        u = self.look_back(looked_back.unsqueeze(0))
        spikes: Tensor = self.mixed(self.alpha * u + (1.0 - self.alpha) * now.unsqueeze(0))
        return spikes.squeeze(0)


class TIMAttention(SpikingSelfAttention):
    """Spiking self-attention whose queries pass a `TemporalInteraction`."""

    def __init__(self, config: TIMConfig, make_neuron: MakeNeuron) -> None:
        super().__init__(config.dim, config.heads, make_neuron, scale=0.25, proj_bias=False)
        self.neuron = make_neuron(v_threshold=config.threshold("attention"))
        self.interaction = TemporalInteraction(config, make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k, v = (split_heads(unit(x), self.heads) for unit in (self.q, self.k, self.v))
        y = attention_product(self.interaction(q), k, v).reshape(x.shape) * self.scale
        spikes: Tensor = self.proj(self.neuron(y))
        return spikes


class Block(nn.Module):
    """Attention, then MLP, each added to a stream of small integers."""

    def __init__(self, config: TIMConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.attn = TIMAttention(config, make_neuron)
        self.mlp = SpikingMlp(config.dim, int(config.dim * config.mlp_ratio), make_neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(self.attn(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")


class TIM(VisionNetwork):
    """Spikformer with temporal interaction.

    Args:
        config: sizes.
        make_neuron: makes each neuron, and is called with ``v_threshold`` for three in a block;
            default the paper's.

    >>> import torch
    >>> net = TIM(TIMConfig(depth=1, dim=32, heads=2, T=2))
    >>> net(torch.rand(3, 2, 2, 64, 64)).shape
    torch.Size([3, 2, 10])
    """

    def __init__(self, config: TIMConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config, 16)
        make_neuron = make_neuron or tim_neuron()
        self.stem = Stem(config.stem, make_neuron)
        self.blocks = nn.ModuleList(Block(config, make_neuron) for _ in range(config.depth))
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise_layer(self.head)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a checked sequence: ``[T, N, num_classes]``.

        Raises:
            ValueError: images of another size.
        """
        config = self.config
        if x.shape[-2] * x.shape[-1] != config.image_size**2:
            raise ValueError(
                f"this TIM is built for {config.image_size**2} pixels, got frames "
                f"{list(x.shape[-2:])}; build it with their image_size"
            )
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


PRESETS: dict[str, TIMConfig] = {
    f"tim_{data}": TIMConfig(num_classes=classes)
    for data, classes in {
        "cifar10dvs": 10,
        "ncaltech101": 101,
        "ncars": 2,
        "ucf101dvs": 101,
        "hmdb51dvs": 51,
    }.items()
}

# Layer norms; thresholds and surrogate widths, which are no weights.
_NO_WEIGHTS = re.compile(r"norm[12]?\.|pos_embed|res_lif|\.(threshold|act_fun\.alpha)$")
_OURS: Replacements = {
    r"^patch_embed\.proj(\d?)\.": lambda m: f"stem.stages.{m[1] or 0}.",
    r"^patch_embed\.rpe\.": "stem.position.",
    r"^block\.": "blocks.",
    r"\.TIM\.interactor\.": ".interaction.conv.",
    r"\.TIM\.in\.neuron": ".interaction.look_back",
    r"\.TIM\.out\.neuron": ".interaction.mixed",
    r"\.attn\.attn\.neuron": ".attn.neuron",
}


def _rename(key: str) -> str | None:
    if _NO_WEIGHTS.search(key):
        return None
    return replace_in_turn(split_units(key), _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> TIMConfig:
    attention = "block.0.attn."
    need_layers(weights, "a TIM", "patch_embed.proj_conv", f"{attention}TIM.interactor")
    num_classes, dim = weights["head.weight"].shape
    tokens = weights[f"{attention}TIM.interactor.weight"].shape[0]
    official = {"attention": "attn_lif", "look_back": "TIM.in_lif", "mixed": "TIM.out_lif"}
    return TIMConfig(
        depth=depth_of(weights, "block"),
        dim=dim,
        heads=dim // tokens,
        image_size=16 * round(tokens**0.5),
        channels=weights["patch_embed.proj_conv.weight"].shape[1],
        num_classes=num_classes,
        T=kwargs.get("step", 10),
        mlp_ratio=weights["block.0.mlp.fc1_conv.weight"].shape[0] / dim,
        alpha=kwargs.get("TIM_alpha", 0.5),
        thresholds={
            ours: float(weights[f"{attention}{theirs}.threshold"])
            for ours, theirs in official.items()
        },
    )


FAMILY = Family(
    "tim",
    network=TIM,
    presets=PRESETS,
    neuron=tim_neuron,
    official={"tim": Official(_config, _rename)},
)
