"""BERT encoders, sources of conversion: plain, or with the quantisers of SpikeZIP-TF.

Names of parameters are those of transformers (without ``bert.``), so its state dicts load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rheobase.layers.lsq import quantiser

__all__ = ["Bert", "BertConfig", "BertEncoder", "encoder_from_spikezip", "sentence_embedding"]


@dataclass(frozen=True)
class BertConfig:
    """A BERT encoder; the defaults are all-MiniLM-L6-v2's.

    Args:
        vocabulary: tokens.
        dim: width, a multiple of ``heads``.
        depth: layers.
        heads: of the attention.
        hidden: width of the hidden layer of the MLP.
        positions: the longest sentence.
        activation: of the hidden layer.
        norm_eps: of the layer norms.
        levels: of the quantisers of SpikeZIP-TF; None: there are none. The activation is then
            "relu".
        signed_context: whether the quantiser behind attention is symmetric. That of the released
            code for language is not, so negative values are lost there; that for vision is.
    """

    vocabulary: int = 30522
    dim: int = 384
    depth: int = 6
    heads: int = 12
    hidden: int = 1536
    positions: int = 512
    activation: Literal["gelu", "relu"] = "gelu"
    norm_eps: float = 1e-12
    levels: int | None = None
    signed_context: bool = True

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")
        if self.levels is not None and self.activation != "relu":
            raise ValueError(
                "the hidden layer's quantiser is unsigned, so a quantised network needs "
                f'activation="relu", got {self.activation!r}'
            )


def split_words(x: Tensor, heads: int) -> Tensor:
    """``[..., L, dim]`` to ``[..., heads, L, dim / heads]``."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(-3, -2)


class SelfAttention(nn.Module):
    """Queries, keys and values, and what they attend to."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = (config.dim // config.heads) ** -0.5
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.query_quan = quantiser(config.levels)
        self.key_quan = quantiser(config.levels)
        self.value_quan = quantiser(config.levels)
        self.softmax = nn.Softmax(-1)
        self.attn_quan = quantiser(config.levels, symmetric=False)
        self.after_attn_quan = quantiser(config.levels, symmetric=config.signed_context)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, L, dim]`` and what is added to the scores, ``[N, 1, 1, L]``, to ``[N, L, dim]``."""
        q = split_words(self.query_quan(self.query(x)), self.heads)
        k = split_words(self.key_quan(self.key(x)), self.heads)
        v = split_words(self.value_quan(self.value(x)), self.heads)
        scores = torch.matmul(q, k.transpose(-2, -1)) * self.scale
        if mask is not None:
            scores = scores + mask
        attention = self.attn_quan(self.softmax(scores))
        context = self.after_attn_quan(torch.matmul(attention, v))
        y: Tensor = context.transpose(1, 2).flatten(2)
        return y


class Output(nn.Module):
    """A linear layer, added to the stream, which is normed."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.dim)
        self.quan = quantiser(config.levels)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, y: Tensor, stream: Tensor) -> Tensor:
        """``[N, L, width]`` and the stream ``[N, L, dim]`` to the next stream."""
        out: Tensor = self.LayerNorm(self.quan(self.dense(y)) + stream)
        return out


class Attention(nn.Module):
    """Self-attention and its output."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, L, dim]`` to the same shape."""
        y: Tensor = self.output(self.self(x, mask), x)
        return y


class Intermediate(nn.Module):
    """The hidden layer of the MLP."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.dim, config.hidden)
        self.quan = quantiser(config.levels, symmetric=False)
        self.act = nn.GELU() if config.activation == "gelu" else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, L, dim]`` to ``[N, L, hidden]``."""
        y: Tensor = self.act(self.quan(self.dense(x)))
        return y


class Layer(nn.Module):
    """Attention, then MLP; norms behind the additions."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, L, dim]`` to the same shape."""
        x = self.attention(x, mask)
        y: Tensor = self.output(self.intermediate(x), x)
        return y


class BertEncoder(nn.Module):
    """The layers, without the embedding.

    >>> net = BertEncoder(BertConfig(dim=8, depth=1, heads=2, hidden=16))
    >>> net(torch.rand(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[N, L, dim]`` and what is added to scores, ``[N, 1, 1, L]``, to ``[N, L, dim]``."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Embeddings(nn.Module):
    """Words, positions and which of two sentences it is (the first, unless told)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.dim)
        self.position_embeddings = nn.Embedding(config.positions, config.dim)
        self.token_type_embeddings = nn.Embedding(2, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Words and, where there are two sentences, 0 or 1: ``[N, L]`` to ``[N, L, dim]``."""
        words = self.word_embeddings(ids)
        places = self.position_embeddings.weight[: ids.shape[1]]
        kinds = self.token_type_embeddings
        kind = kinds.weight[0] if segments is None else kinds(segments)
        x: Tensor = self.LayerNorm(words + places + kind)
        return x


class Bert(nn.Module):
    """BERT without a head; padding has the number 0, and no word attends to it.

    Source: Devlin et al. 2019, arXiv 1810.04805.

    >>> net = Bert(BertConfig(vocabulary=50, dim=8, depth=1, heads=2, hidden=16))
    >>> net(torch.tensor([[2, 7, 3], [2, 3, 0]])).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = BertEncoder(config)

    def forward(self, ids: Tensor) -> Tensor:
        """The last layer's states: ``[N, L]`` to ``[N, L, dim]``."""
        x = self.embeddings(ids)
        padding = ids.eq(0)[:, None, None, :].to(x.dtype)
        y: Tensor = self.encoder(x, padding * -1e9)
        return y


def sentence_embedding(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over words, of length 1: states ``[N, L, dim]`` and mask ``[N, L]`` to ``[N, dim]``.

    Source: sentence-transformers' all-MiniLM-L6-v2.
    """
    weights = mask.unsqueeze(-1).to(states.dtype)
    mean: Tensor = (states * weights).sum(1) / weights.sum(1)
    return nn.functional.normalize(mean, dim=-1)


def encoder_from_spikezip(state: Mapping[str, Tensor], *, heads: int, levels: int) -> BertEncoder:
    """The quantised encoder of a RoBERTa checkpoint of SpikeZIP-TF (branch NLU-Tasks).

    Args:
        state: keys from ``layer.0.`` on.
        heads: of the attention, which the weights do not show.
        levels: of its quantisers.

    Returns:
        the encoder with these weights, in their dtype; convert it by ``recipe="spikezip_tf"``.

    Raises:
        ValueError: keys are missing or unknown (they are named).
    """
    renamed = {_spikezip_name(key): value for key, value in state.items()}
    weight = renamed.get("layer.0.intermediate.dense.weight")
    if weight is None:
        raise ValueError(
            "this is no state dict of a quantised SpikeZIP-TF encoder: it has no "
            f"layer.0.intermediate.dense.weight; its keys begin {sorted(state)[:4]}"
        )
    config = BertConfig(
        dim=weight.shape[1],
        depth=1 + max(int(key.split(".")[1]) for key in renamed),
        heads=heads,
        hidden=weight.shape[0],
        activation="relu",
        levels=levels,
        signed_context=False,
    )
    net = BertEncoder(config).to(weight.dtype)
    missing, unknown = net.load_state_dict(renamed, strict=False)
    if missing or unknown:
        raise ValueError(f"this checkpoint lacks {missing} and has unknown keys {unknown}")
    return net


def _spikezip_name(key: str) -> str:
    key = key.replace(".dense.0.", ".dense.").replace(".dense.1.s", ".quan.scale")
    key = key.replace(".intermediate_act_fn.0.s", ".quan.scale")
    return key.removesuffix("_quan.s") + "_quan.scale" if key.endswith("_quan.s") else key
