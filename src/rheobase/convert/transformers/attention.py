"""Attention of PyTorch written out: linear layers, two products, a softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rheobase.convert.kinds import KINDS
from rheobase.convert.transformers.writer import Writer

__all__ = [
    "attention_scores",
    "masked_softmax",
    "multihead",
    "scaled_dot_product",
    "without_later_keys",
]

_NEVER = -1e9
"""What is added to the score of a key that must not be attended to."""


def attention_scores(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    """Scaled products of queries and keys; the default scale is the head's width to the -1/2."""
    return torch.matmul(q, k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)


def masked_softmax(scores: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax over keys of scores ``[..., queries, keys]``.

    Args:
        scores: of attention.
        mask: added to the scores; as booleans, where attention is allowed.
        causal: no query attends to a later key.
    """
    if causal:
        scores = without_later_keys(scores, -torch.inf)
    if mask is not None:
        scores = scores + added(mask, scores.dtype)
    return scores.softmax(-1)


def without_later_keys(scores: Tensor, fill: float) -> Tensor:
    """Scores ``[..., queries, keys]``, with ``fill`` where the key comes after the query."""
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, fill)


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores; booleans say where attention is allowed.

    Minus infinity becomes a number that sums over time bear.
    """
    if mask.dtype is not torch.bool:
        return mask.to(dtype).clamp(min=_NEVER)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, _NEVER)


def forbidden(mask: Tensor) -> Tensor:
    """A mask of `nn.MultiheadAttention` (booleans say where attention is *not* allowed), added."""
    allowed = ~mask if mask.dtype is torch.bool else mask
    return added(allowed, torch.promote_types(mask.dtype, torch.get_default_dtype()))


def padding(mask: Tensor) -> Tensor:
    """A mask of keys ``[N, keys]``, for scores ``[N, heads, queries, keys]``."""
    return forbidden(mask)[:, None, None, :]


def per_head(mask: Tensor, heads: int) -> Tensor:
    """A mask ``[queries, keys]``, or ``[N * heads, queries, keys]``, for scores."""
    mask = forbidden(mask)
    return mask if mask.dim() == 2 else mask.unflatten(0, (-1, heads))  # type: ignore[no-untyped-call]


def shared_heads(keys: Tensor, queries: Tensor) -> Tensor:
    """Keys or values ``[N, few, L, width]`` for queries of more heads, which share them."""
    return keys.repeat_interleave(queries.shape[-3] // keys.shape[-3], -3)


KINDS[attention_scores] = "matmul"
KINDS[masked_softmax] = "softmax"
KINDS[padding] = KINDS[per_head] = KINDS[shared_heads] = "shape"


def multihead(
    w: Writer,
    module: nn.MultiheadAttention,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: fx.Proxy | None = None,
    need_weights: bool = True,
    attn_mask: fx.Proxy | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[fx.Proxy, fx.Proxy | None]:
    """`nn.MultiheadAttention`: its output and weights."""
    heads, given = module.num_heads, (query, key, value)
    if not module.batch_first:
        turned = {x.node: x.transpose(0, 1) for x in given}
        given = tuple(turned[x.node] for x in given)
    q, k, v = (
        w.linear(name, weight, bias, x)
        for (name, weight, bias), x in zip(_projections(module), given, strict=True)
    )
    if module.bias_k is not None:
        k, v = (_with_token(w, x, name) for x, name in ((k, "bias_k"), (v, "bias_v")))
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if module.add_zero_attn:
        k, v = (w.function(F.pad, x, (0, 0, 0, 1)) for x in (k, v))
    more = int(module.bias_k is not None) + int(module.add_zero_attn)
    scores = w.function(attention_scores, q, k)
    if attn_mask is not None:
        scores = scores + w.function(F.pad, w.function(per_head, attn_mask, heads), (0, more))
    if key_padding_mask is not None:
        scores = scores + w.function(F.pad, w.function(padding, key_padding_mask), (0, more))
    attention = w.function(masked_softmax, scores)
    context = w.function(torch.matmul, attention, v).transpose(1, 2).flatten(2)
    out = w.part("out_proj", context)
    if not module.batch_first:
        out = out.transpose(0, 1)
    if not need_weights:
        return out, None
    return out, attention.mean(1) if average_attn_weights else attention


def _with_token(w: Writer, x: Any, name: str) -> Any:
    """``[N, L, dim]`` with a key of the module's own behind the others."""
    token = w.weight(name).expand(x.shape[0], -1, -1)
    return w.function(torch.cat, [x, token], 1)


def _projections(module: nn.MultiheadAttention) -> list[tuple[str, Tensor, Tensor | None]]:
    names = ("q", "k", "v")
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.chunk(3)
    else:
        own = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = tuple(weight for weight in own if weight is not None)
    none = (None, None, None)
    biases = none if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return list(zip(names, weights, biases, strict=True))


def scaled_dot_product(
    w: Writer,
    _: nn.Module | None,
    query: fx.Proxy,
    key: fx.Proxy,
    value: fx.Proxy,
    attn_mask: fx.Proxy | None = None,
    dropout_p: float | fx.Proxy = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`F.scaled_dot_product_attention`."""
    if enable_gqa:
        key, value = (w.function(shared_heads, x, query) for x in (key, value))
    scores = w.function(attention_scores, query, key, scale)
    attention = w.function(masked_softmax, scores, attn_mask, is_causal)
    return w.function(torch.matmul, attention, value)
