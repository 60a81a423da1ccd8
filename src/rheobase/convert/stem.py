"""What comes before the first spikes: nothing with weights may stay analog but the first layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx, nn

from rheobase.convert.build import cannot
from rheobase.convert.kinds import kind_of, occurrences, passes_spikes
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import Replacement
from rheobase.convert.trace import Traced

__all__ = ["check_stem"]

_WHOLE = (
    "multihead_attention", "transformer", "transformer_encoder", "transformer_encoder_layer",
    "transformer_decoder", "transformer_decoder_layer",
)  # fmt: skip
"""Kinds that have layers with weights inside."""


def check_stem(traced: Traced, recipe: Recipe, has: Callable[[str | None], bool]) -> None:
    """Refuse an operation that would be left as the ANN has it, behind a layer with weights.

    Args:
        traced: with its neurons and operators in.
        recipe: named in the error.
        has: whether the recipe has an operator for a kind, and so left the node on purpose.

    Raises:
        ValueError: naming node, line and remedy.
    """
    spikes: set[fx.Node] = set()
    reached: set[fx.Node] = set()  # depends on the input, but on no spikes
    weighed: set[fx.Node] = set()  # and on a layer with weights
    for node in traced.graph.nodes:
        module, kind = traced.owner(node), kind_of(traced, node)
        operands = [n for n in node.all_input_nodes if n in reached]
        if isinstance(module, Replacement) or not spikes.isdisjoint(node.all_input_nodes):
            spikes.add(node)
        elif operands or node.op == "placeholder":
            reached.add(node)
            behind = not weighed.isdisjoint(operands)
            inside = kind in _WHOLE or (kind in (None, "function") and _has_layers(module))
            if (behind or inside) and not has(kind) and not _passes(node, kind, operands):
                raise ValueError(cannot(traced, node, kind, recipe))
            if behind or kind == "weighted":
                weighed.add(node)


def _passes(node: fx.Node, kind: str | None, operands: list[fx.Node]) -> bool:
    """Whether it is linear in what it takes, or gives or takes no tensor at all."""
    tensors = [n for n in operands if _is_tensor(n)]
    if node.op == "output" or not tensors or not _is_tensor(node):
        return True
    return kind is not None and passes_spikes(kind, occurrences(node, tensors))


def _has_layers(module: nn.Module | None) -> bool:
    """Whether a module that is no layer has weights; an embedding looks them up."""
    if module is None or isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return False
    return next(module.parameters(), None) is not None


def _is_tensor(node: fx.Node) -> bool:
    growth = node.meta.get("growth")
    return growth is None or growth.what in ("tensor", "other")
