"""Transformer layers and stacks of PyTorch written out, and the attention in them.

A pass over the graph: calls of `nn.Transformer`, its encoders, decoders and their layers, of
`nn.MultiheadAttention` and `F.scaled_dot_product_attention` become the operations they are made of,
so that neurons and operators find their places. What is computed stays the same.
"""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from rheobase.convert.kinds import KINDS
from rheobase.convert.prepare import own_activations
from rheobase.convert.trace import Traced
from rheobase.convert.transformers.attention import multihead, scaled_dot_product
from rheobase.convert.transformers.writer import Writer, write_out

__all__ = ["write_out_attention"]

Mask = fx.Proxy | None


def write_out_attention(traced: Traced, _: object = None) -> None:
    """Replace attention modules and functions of PyTorch by what they are made of, in place.

    Raises:
        ValueError: one of them computes something of its own (named, with its line).
    """
    for kind, write in (
        ("transformer", _transformer),
        ("transformer_encoder", _encoder),
        ("transformer_decoder", _decoder),
        ("transformer_encoder_layer", _encoder_layer),
        ("transformer_decoder_layer", _decoder_layer),
        ("multihead_attention", multihead),
        ("attention", scaled_dot_product),
    ):
        write_out(traced, kind, write)
    own_activations(traced)
    traced.graph.eliminate_dead_code()
    traced.module.recompile()


KINDS[nn.Transformer] = "transformer"
KINDS[nn.TransformerEncoder] = "transformer_encoder"
KINDS[nn.TransformerDecoder] = "transformer_decoder"
KINDS[nn.TransformerDecoderLayer] = "transformer_decoder_layer"


def _transformer(
    w: Writer,
    module: nn.Transformer,
    src: fx.Proxy,
    tgt: fx.Proxy,
    src_mask: Mask = None,
    tgt_mask: Mask = None,
    memory_mask: Mask = None,
    src_key_padding_mask: Mask = None,
    tgt_key_padding_mask: Mask = None,
    memory_key_padding_mask: Mask = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Any:
    memory = w.part("encoder", src, src_mask, src_key_padding_mask)
    masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    return w.part("decoder", tgt, memory, *masks)


def _encoder(
    w: Writer,
    module: nn.TransformerEncoder,
    src: fx.Proxy,
    mask: Mask = None,
    src_key_padding_mask: Mask = None,
    is_causal: bool | None = None,
) -> Any:
    x = src
    for number in range(len(module.layers)):
        x = w.part(f"layers.{number}", x, mask, src_key_padding_mask)
    return x if module.norm is None else w.part("norm", x)


def _decoder(
    w: Writer,
    module: nn.TransformerDecoder,
    tgt: fx.Proxy,
    memory: fx.Proxy,
    tgt_mask: Mask = None,
    memory_mask: Mask = None,
    tgt_key_padding_mask: Mask = None,
    memory_key_padding_mask: Mask = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Any:
    masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
    x = tgt
    for number in range(len(module.layers)):
        x = w.part(f"layers.{number}", x, memory, *masks)
    return x if module.norm is None else w.part("norm", x)


def _encoder_layer(
    w: Writer,
    module: nn.TransformerEncoderLayer,
    src: Any,
    src_mask: Mask = None,
    src_key_padding_mask: Mask = None,
    is_causal: bool = False,
) -> Any:
    def attend(x: Any) -> Any:
        return _attend(w, "self_attn", x, x, src_mask, src_key_padding_mask)

    x = src
    for norm, branch in (("norm1", attend), ("norm2", lambda x: _mlp(w, module, x))):
        x = _residual(w, module.norm_first, norm, branch, x)
    return x


def _decoder_layer(
    w: Writer,
    module: nn.TransformerDecoderLayer,
    tgt: Any,
    memory: Any,
    tgt_mask: Mask = None,
    memory_mask: Mask = None,
    tgt_key_padding_mask: Mask = None,
    memory_key_padding_mask: Mask = None,
    tgt_is_causal: bool = False,
    memory_is_causal: bool = False,
) -> Any:
    def attend(x: Any) -> Any:
        return _attend(w, "self_attn", x, x, tgt_mask, tgt_key_padding_mask)

    def read(x: Any) -> Any:
        return _attend(w, "multihead_attn", x, memory, memory_mask, memory_key_padding_mask)

    x = tgt
    branches = (("norm1", attend), ("norm2", read), ("norm3", lambda x: _mlp(w, module, x)))
    for norm, branch in branches:
        x = _residual(w, module.norm_first, norm, branch, x)
    return x


def _residual(w: Writer, norm_first: bool, norm: str, branch: Any, x: Any) -> Any:
    return x + branch(w.part(norm, x)) if norm_first else w.part(norm, x + branch(x))


def _attend(w: Writer, name: str, x: Any, keys: Any, mask: Mask, padding: Mask) -> Any:
    masks = {"attn_mask": mask, "key_padding_mask": padding}
    return w.part(name, x, keys, keys, need_weights=False, **masks)[0]


def _mlp(w: Writer, module: Any, x: Any) -> Any:
    hidden = w.part("linear1", x)
    inner = module.activation
    active = w.part("activation", hidden) if isinstance(inner, nn.Module) else inner(hidden)
    return w.part("linear2", active)
