"""Thresholds that need the graph: bounds by weights alone, and Diehl's chain of factors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from rheobase.convert.activations import Site
from rheobase.convert.kinds import WEIGHTED, kind_of
from rheobase.convert.recipe import Recipe
from rheobase.convert.trace import Traced, line_of

__all__ = ["BY_GRAPH"]

Thresholds = dict[str, Tensor]


def _model_bound(
    traced: Traced, sites: list[Site], recipe: Recipe, thresholds: Thresholds
) -> Thresholds:
    """The largest activation that weights allow: sums of positive weights, layer after layer.

    Inputs are taken to be at most 1. Source: Diehl et al. 2015, algorithm 1 (model-based).
    """
    bounds: dict[fx.Node, Tensor] = {}
    found: Thresholds = {}
    names = {site.name for site in sites}
    for node in traced.graph.nodes:
        before = [bounds[n] for n in node.all_input_nodes if n in bounds]
        module = traced.owner(node)
        if node.op == "placeholder":
            bounds[node] = torch.ones(())
        elif not before:
            continue
        elif isinstance(module, WEIGHTED):
            bounds[node] = max(before) * _largest_positive_sum(module)
        elif kind_of(traced, node) in ("weighted", "batch_norm"):
            raise ValueError(
                f"recipe {recipe.name!r} bounds activations by the weights of modules, but "
                f"{node.name!r} ({line_of(node)}) is none, or a batch norm that was not folded; "
                "take a recipe that calibrates on data"
            )
        else:
            both = torch.stack(before).sum() if kind_of(traced, node) == "add" else max(before)
            bounds[node] = both
        if node.target in names:
            like = thresholds[str(node.target)]
            found[str(node.target)] = bounds[node].to(like) * recipe.statistic.scale
    return found


def _largest_positive_sum(layer: nn.Module) -> Tensor:
    """Of the weights into one unit."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        weight = weight.transpose(0, 1)
    return weight.detach().relu().flatten(1).sum(1).max()


def _diehl_data(
    traced: Traced, sites: list[Site], recipe: Recipe, thresholds: Thresholds
) -> Thresholds:
    """The larger of a layer's largest weight and its largest activation.

    In the authors' code the next layer is divided by (its scale / the factor applied before),
    where the scale itself is meant; ``as_released`` does so. Source: Diehl et al. 2015.
    """
    nodes = {str(n.target): n for n in traced.graph.nodes if n.op == "call_module"}
    found: Thresholds = {}
    applied, product = torch.ones(()), torch.ones(())
    for site in sites:
        scale = thresholds[site.name]
        layer = _layer_before(traced, nodes[site.name])
        if layer is not None:
            assert isinstance(layer.weight, Tensor)
            scale = torch.maximum(scale, layer.weight.detach().max().to(scale))
        if recipe.statistic.as_released:
            applied = scale / applied.to(scale)
            product = product.to(scale) * applied
            scale = product
        found[site.name] = scale
    return found


def _layer_before(traced: Traced, node: fx.Node) -> nn.Module | None:
    """The weighted layer whose result a node takes, through what has no weights."""
    seen: fx.Node | None = node
    while seen is not None:
        inputs = seen.all_input_nodes
        seen = inputs[0] if len(inputs) == 1 else None
        module = None if seen is None else traced.owner(seen)
        if isinstance(module, WEIGHTED):
            return module
    return None


BY_GRAPH: dict[str, Callable[[Traced, list[Site], Recipe, Thresholds], Thresholds]] = {
    "model_bound": _model_bound,
    "diehl_data": _diehl_data,
}
"""Statistics that go on from what the meters found: ``(traced, sites, recipe, thresholds)``."""
