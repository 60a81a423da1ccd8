"""Attention of PyTorch written out: linear layers, two products, a softmax.

A pass over the graph: calls of `nn.MultiheadAttention`, `nn.TransformerEncoderLayer`,
`nn.TransformerEncoder` and `F.scaled_dot_product_attention` become the operations they are made of,
so that neurons and operators find their places. What is computed stays the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from rheobase.convert.kinds import KINDS, kind_of
from rheobase.convert.prepare import own_activations
from rheobase.convert.trace import Traced, add_module, line_of

__all__ = [
    "Writer",
    "attention_scores",
    "masked_softmax",
    "without_later_keys",
    "write_out",
    "write_out_attention",
]


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
    """A mask as what is added to scores; booleans say where attention is allowed."""
    if mask.dtype is not torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -1e9)


def forbidden(mask: Tensor) -> Tensor:
    """A mask of `nn.MultiheadAttention` (booleans say where attention is *not* allowed), added."""
    return added(~mask, torch.get_default_dtype()) if mask.dtype is torch.bool else mask


def padding(mask: Tensor) -> Tensor:
    """A mask of keys ``[N, keys]``, for scores ``[N, heads, queries, keys]``."""
    return forbidden(mask)[:, None, None, :]


def per_head(mask: Tensor, heads: int) -> Tensor:
    """A mask ``[queries, keys]``, or ``[N * heads, queries, keys]``, for scores."""
    mask = forbidden(mask)
    return mask if mask.dim() == 2 else mask.unflatten(0, (-1, heads))  # type: ignore[no-untyped-call]


KINDS[attention_scores] = "matmul"
KINDS[masked_softmax] = "softmax"
KINDS[padding] = KINDS[per_head] = "shape"
KINDS[nn.TransformerEncoder] = "transformer_encoder"


def write_out_attention(traced: Traced, _: object = None) -> None:
    """Replace attention modules and functions of PyTorch by what they are made of, in place.

    Raises:
        ValueError: one of them has an option that is not converted (named, with its line).
    """
    for kind, write in (
        ("transformer_encoder", _encoder),
        ("transformer_encoder_layer", _encoder_layer),
        ("multihead_attention", _multihead),
        ("attention", _scaled_dot_product),
    ):
        write_out(traced, kind, write)
    own_activations(traced)
    traced.graph.eliminate_dead_code()
    traced.module.recompile()


def write_out(traced: Traced, kind: str, write: Callable[..., Any]) -> None:
    """Replace every node of a kind by what ``write`` makes of its arguments.

    Args:
        traced: the graph.
        kind: of node.
        write: ``(writer, module or None, *arguments) -> what stands for the node's value``.
    """
    for node in list(traced.graph.nodes):
        if kind_of(traced, node) == kind:
            with traced.graph.inserting_before(node):
                Writer(traced, node).replace(write)


class Writer:
    """Appends operations to the graph in the place of one node."""

    def __init__(self, traced: Traced, node: fx.Node) -> None:
        self.traced = traced
        self.node = node
        self.tracer = fx.proxy.GraphAppendingTracer(traced.graph)

    def replace(self, write: Any) -> None:
        """Write the operations and let the node's users take their result."""
        kept = set(self.traced.graph.nodes)
        proxy: Any = partial(fx.Proxy, tracer=self.tracer)
        arguments: Any = fx.map_arg(self.node.args, proxy)
        named: Any = fx.map_arg(self.node.kwargs, proxy)
        out = write(self, self.traced.owner(self.node), *arguments, **named)
        for new in self.traced.graph.nodes:
            if new not in kept:
                new.stack_trace = self.node.stack_trace
        if isinstance(out, tuple):
            self._take_first(out[0].node)
        else:
            self.node.replace_all_uses_with(out.node)
        self.traced.graph.erase_node(self.node)

    def call(self, name: str, x: fx.Proxy) -> fx.Proxy:
        """A module of the network, by name, on a value."""
        return fx.Proxy(self.traced.graph.call_module(name, (x.node,)), self.tracer)

    def module(self, name: str, module: nn.Module, x: fx.Proxy) -> fx.Proxy:
        """A new module on a value."""
        return self.call(add_module(self.traced, f"{self.node.name}_{name}", module), x)

    def function(self, function: Callable[..., Tensor], *arguments: Any) -> Any:
        """A function on values, as one operation."""
        return self.tracer.create_proxy("call_function", function, arguments, {})

    def part(self, name: str, *inputs: fx.Proxy | None, **named: Any) -> Any:
        """A part of the node's own module on values."""
        nodes = tuple(None if x is None else x.node for x in inputs)
        named = {k: v.node if isinstance(v, fx.Proxy) else v for k, v in named.items()}
        called = self.traced.graph.call_module(f"{self.node.target}.{name}", nodes, named)
        return fx.Proxy(called, self.tracer)

    def linear(self, name: str, weight: Tensor, bias: Tensor | None, x: fx.Proxy) -> fx.Proxy:
        """A linear layer with some of the node's own weights."""
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        return self.call(add_module(self.traced, f"{self.node.target}_{name}", layer), x)

    def refuse(self, what: str) -> NoReturn:
        """Raise an error that names the node."""
        raise ValueError(
            f"node {self.node.name!r} ({self.node.target}, {line_of(self.node)}) {what}, which "
            "conversion does not take; write that part of the network without it"
        )

    def _take_first(self, first: fx.Node) -> None:
        """The node gave a tuple (output, weights): its users take the output out of it."""
        for user in list(self.node.users):
            if user.target is not operator.getitem or user.args[1] != 0:
                if user.users or user.op == "output":
                    self.refuse("returns attention weights that are used")
                continue
            user.replace_all_uses_with(first)
        for user in list(self.node.users):
            self.traced.graph.erase_node(user)


def _encoder(
    w: Writer,
    module: nn.TransformerEncoder,
    src: fx.Proxy,
    mask: fx.Proxy | None = None,
    src_key_padding_mask: fx.Proxy | None = None,
    is_causal: bool | None = None,
) -> Any:
    x = src
    for number in range(len(module.layers)):
        x = w.part(f"layers.{number}", x, mask, src_key_padding_mask)
    return x if module.norm is None else w.part("norm", x)


def _encoder_layer(
    w: Writer,
    module: nn.TransformerEncoderLayer,
    src: Any,
    src_mask: fx.Proxy | None = None,
    src_key_padding_mask: fx.Proxy | None = None,
    is_causal: bool = False,
) -> Any:
    def attend(x: Any) -> Any:
        masks = {"attn_mask": src_mask, "key_padding_mask": src_key_padding_mask}
        return w.part("self_attn", x, x, x, need_weights=False, **masks)[0]

    def mlp(x: Any) -> Any:
        activation: Any = module.activation
        return w.part("linear2", activation(w.part("linear1", x)))

    if module.norm_first:
        x = src + attend(w.part("norm1", src))
        return x + mlp(w.part("norm2", x))
    x = w.part("norm1", src + attend(src))
    return w.part("norm2", x + mlp(x))


def _multihead(
    w: Writer,
    module: nn.MultiheadAttention,
    query: fx.Proxy,
    key: fx.Proxy,
    value: fx.Proxy,
    key_padding_mask: fx.Proxy | None = None,
    need_weights: bool = True,
    attn_mask: fx.Proxy | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[fx.Proxy, None]:
    if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
        w.refuse("adds a key of its own (add_bias_kv or add_zero_attn)")
    heads = module.num_heads
    q, k, v = (
        _split(w.linear(name, weight, bias, x), heads, module.batch_first)
        for (name, weight, bias), x in zip(_projections(module), (query, key, value), strict=True)
    )
    scores = w.function(attention_scores, q, k)
    if attn_mask is not None:
        scores = scores + w.function(per_head, attn_mask, heads)
    if key_padding_mask is not None:
        scores = scores + w.function(padding, key_padding_mask)
    attention = w.function(masked_softmax, scores)
    context = w.function(torch.matmul, attention, v).transpose(1, 2).flatten(2)
    out = w.part("out_proj", context)
    return (out if module.batch_first else out.transpose(0, 1)), None


def _split(x: fx.Proxy, heads: int, batch_first: bool) -> fx.Proxy:
    """To ``[N, heads, L, width]``."""
    x = x if batch_first else x.transpose(0, 1)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


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


def _scaled_dot_product(
    w: Writer,
    _: None,
    query: fx.Proxy,
    key: fx.Proxy,
    value: fx.Proxy,
    attn_mask: fx.Proxy | None = None,
    dropout_p: float | fx.Proxy = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if enable_gqa:
        w.refuse("shares keys between queries (enable_gqa)")
    scores = w.function(attention_scores, query, key, scale)
    attention = w.function(masked_softmax, scores, attn_mask, is_causal)
    return w.function(torch.matmul, attention, value)
