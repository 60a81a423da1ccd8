"""LLaMA, a source of conversion: what SpikeLLM makes spikes of.

Touvron et al. 2023, arXiv 2302.13971 and 2307.09288. Names of parameters are those of transformers
(``LlamaForCausalLM``), so its state dicts load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rheobase.models._inputs import check_divides, check_positive
from rheobase.models.bert import split_words

__all__ = ["LLAMA_SIZES", "Llama", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    """One LLaMA; the defaults are those of 7 billion parameters.

    Args:
        vocabulary: tokens.
        dim: width, a multiple of ``heads``.
        depth: layers.
        heads: of the queries.
        groups: heads of keys and values, which so many queries share; divides ``heads``.
        hidden: width of the hidden layer of the MLP.
        norm_eps: of the norms (1e-6 in LLaMA 1).

    Raises:
        ValueError: a size that is not positive, or sizes that do not divide each other.
    """

    vocabulary: int = 32000
    dim: int = 4096
    depth: int = 32
    heads: int = 32
    groups: int = 32
    hidden: int = 11008
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_positive(
            vocabulary=self.vocabulary, dim=self.dim, depth=self.depth, heads=self.heads,
            groups=self.groups, hidden=self.hidden,
        )  # fmt: skip
        check_divides("heads", self.heads, self.dim, f"dim={self.dim}")
        check_divides("groups", self.groups, self.heads, f"heads={self.heads}")


LLAMA_SIZES = {
    "7b": LlamaConfig(),
    "13b": LlamaConfig(dim=5120, depth=40, heads=40, groups=40, hidden=13824),
    "llama2_70b": LlamaConfig(dim=8192, depth=80, heads=64, groups=8, hidden=28672),
}
"""Published sizes; of 7 and 13 billion parameters LLaMA 1 and 2 differ in ``norm_eps`` alone."""


class Rotary(nn.Module):
    """Pairs of channels, half a head apart, turned by an angle that grows with the place."""

    speed: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        speed = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        self.register_buffer("speed", speed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, heads, L, width]`` to the same shape."""
        places = torch.arange(x.shape[-2], device=x.device).unsqueeze(-1)
        angle = torch.cat([places * self.speed] * 2, -1).to(x.dtype)
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()


class SelfAttention(nn.Module):
    """Every word attends to itself and those before it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.groups = config.heads, config.groups
        width = config.dim // config.heads
        self.q_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.groups * width, bias=False)
        self.v_proj = nn.Linear(config.dim, config.groups * width, bias=False)
        self.o_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.rotary = Rotary(width)
        self.scale = width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` to the same shape."""
        q = self.rotary(split_words(self.q_proj(x), self.heads))
        k = self.rotary(split_words(self.k_proj(x), self.groups))
        v = split_words(self.v_proj(x), self.groups)
        k, v = (one.repeat_interleave(self.heads // self.groups, 1) for one in (k, v))
        places = torch.arange(x.shape[1], device=x.device)
        later = places > places.unsqueeze(-1)
        scores = torch.matmul(q, k.transpose(-2, -1)) * self.scale
        attention = scores.masked_fill(later, -1e9).softmax(-1)
        y: Tensor = self.o_proj(torch.matmul(attention, v).transpose(1, 2).flatten(2))
        return y


class Mlp(nn.Module):
    """A gated hidden layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.dim, bias=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` to the same shape."""
        y: Tensor = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return y


class Layer(nn.Module):
    """Attention, then MLP; norms before them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x))
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Model(nn.Module):
    """All but the head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """``[N, L]`` to ``[N, L, dim]``."""
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.norm(x)
        return y


class Llama(nn.Module):
    """LLaMA: tokens to logits of the next, for ``convert(net, ids, recipe="spikellm", T=1)``.

    >>> net = Llama(LlamaConfig(50, dim=16, depth=1, heads=2, groups=1, hidden=24))
    >>> net(torch.tensor([[2, 7, 3]])).shape
    torch.Size([1, 3, 50])
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = nn.Linear(config.dim, config.vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[N, L]`` to ``[N, L, vocabulary]``."""
        logits: Tensor = self.lm_head(self.model(ids))
        return logits
