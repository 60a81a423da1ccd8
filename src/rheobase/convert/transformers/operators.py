"""Operators that spikes can't pass, evaluated on what has come in so far: exact at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from rheobase.convert.affine import operation_of
from rheobase.convert.kinds import ACTIVATIONS, kind_of
from rheobase.convert.pipeline import Operator
from rheobase.convert.recipe import Convention, Recipe
from rheobase.convert.spiking import Replacement, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.transformers.operands import SIZES, input_dependent
from rheobase.layers import Accumulated

__all__ = [
    "ACCUMULATED",
    "INSTANTANEOUS",
    "AccumulatedOperator",
    "Instantaneous",
    "sequences",
]


class AccumulatedOperator(Replacement):
    """An operation of the graph as an `Accumulated` function of those operands that carry values.

    Args:
        operation: what the node does, called with its arguments.
        operands: which of the positional arguments depend on the network's input.
        convention: how values are coded.
    """

    conventions = ("mean", "sum")

    def __init__(
        self, operation: Callable[..., Tensor], operands: tuple[int, ...], convention: Convention
    ) -> None:
        super().__init__()
        self.operands = operands
        self.accumulated = Accumulated(operation, convention)

    def forward(self, *args: Any, steps: int, **kwargs: Any) -> Tensor:
        """The node's arguments, operands as ``[T * N, ...]``, to ``[T * N, ...]``."""
        sequences = [unfolded(args[i], steps) for i in self.operands]

        def operation(*values: Tensor) -> Tensor:
            given = list(args)
            for i, value in zip(self.operands, values, strict=True):
                given[i] = value
            return self.accumulated.function(*given, **kwargs)

        return folded(self.accumulated.apply_to(operation, *sequences))


class Instantaneous(Replacement):
    """An operation done at every step on that step alone, as if it were linear.

    So do MST and the rate-coded transformer of 2021: their softmax meets the spikes of one step, so
    the network's mean output is not the ANN's, which was trained to bear it.
    """

    def __init__(self, operation: Callable[..., Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, *args: Any, steps: int, **kwargs: Any) -> Tensor:
        """The node's arguments, operands as ``[T * N, ...]``, to ``[T * N, ...]``."""
        return self.operation(*args, **kwargs)


def accumulated(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """The operator of a node; None where no spikes come, or only one factor depends on the input.

    What comes before the first spikes is constant, and computed once.
    """
    kind = kind_of(traced, node)
    operands = operands_of(traced, node)
    linear = kind in _PRODUCTS and len(operands) == 1 and not (kind == "divide" and 1 in operands)
    if linear or node not in sequences(traced, recipe):
        return None
    return AccumulatedOperator(operation_of(traced, node), operands, recipe.encoding.convention)


def instantaneous(traced: Traced, node: fx.Node, recipe: Recipe, _: int) -> Replacement | None:
    """The node's own operation, at every step."""
    if node not in sequences(traced, recipe):
        return None
    return Instantaneous(operation_of(traced, node))


def sequences(traced: Traced, recipe: Recipe) -> set[fx.Node]:
    """Nodes that spikes come to, or that give them; all, where biases are spread over time."""
    found: set[fx.Node] = set()
    spread = recipe.encoding.bias == "spread"
    for node in traced.graph.nodes:
        starts = kind_of(traced, node) in recipe.source or (spread and node.op == "placeholder")
        starts = starts or isinstance(traced.owner(node), Replacement)
        reached = not found.isdisjoint(node.all_input_nodes) and node.target not in SIZES
        if starts or reached:
            found.add(node)
    return found


def operands_of(traced: Traced, node: fx.Node) -> tuple[int, ...]:
    """Which positional arguments depend on the network's input."""
    dependent = input_dependent(traced)
    return tuple(i for i, arg in enumerate(node.args) if arg in dependent)


_PRODUCTS = ("matmul", "multiply", "divide", "einsum")
_FUNCTIONS = (
    "softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm",
    "response_norm", "glu", "max_pool", "function",
    *(kind for kind in ACTIVATIONS if kind != "encode"),
)  # fmt: skip

ACCUMULATED: dict[str, Operator] = {kind: accumulated for kind in (*_PRODUCTS, *_FUNCTIONS)}
INSTANTANEOUS: dict[str, Operator] = {kind: instantaneous for kind in (*_PRODUCTS, *_FUNCTIONS)}
