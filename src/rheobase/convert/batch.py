"""Where the batch is in every value of the graph; what spikes come from wants it on axis 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx

from rheobase.convert.kinds import ACTIVATIONS, kind_of
from rheobase.convert.plain import near, picks, values_of
from rheobase.convert.trace import Traced, line_of

__all__ = ["Growth", "follow_batch", "turn_batch_to_front"]


@dataclass(frozen=True)
class Growth:
    """Which sizes of a node's value grow with the batch.

    Attributes:
        what: a tensor, a tuple of sizes, a number, or anything else.
        axes: one flag for each axis or size; one alone for a number.
    """

    what: Literal["tensor", "sizes", "number", "other"]
    axes: tuple[bool, ...] = ()


def follow_batch(traced: Traced, example: Tensor) -> dict[fx.Node, Any]:
    """Note in every node's meta (``growth``) how its value with two samples differs from that with
    three, and whether it is a mask or an index (``picks``), which no sequence codes.

    Args:
        traced: the graph of the ANN, before anything is replaced.
        example: three samples that differ, ``[3, ...]``.

    Returns:
        the value of every node for these samples.

    Raises:
        ValueError: a node mixes samples.

    What comes behind a module that says of itself that it ``draws`` (at random, in evaluation too)
    is not compared.
    """
    two, three = (values_of(traced, example[:count]) for count in (2, 3))
    drawn: set[fx.Node] = set()
    for node in traced.graph.nodes:
        reads = node.op == "call_method" and node.target in ("item", "tolist")
        if reads and node.all_input_nodes[0].op != "get_attr":
            raise ValueError(
                f"node {node.name!r} ({line_of(node)}) takes numbers out of a tensor, whose values "
                "change over time; compute with the tensor itself"
            )
    for node, value in two.items():
        node.meta["growth"] = growth = _growth(value, three[node])
        node.meta["picks"] = picks(value)
        if getattr(traced.owner(node), "draws", False) or drawn.intersection(node.all_input_nodes):
            drawn.add(node)
        elif growth.what == "tensor" and not _same_samples(value, three[node], growth.axes):
            raise ValueError(
                f"what node {node.name!r} ({line_of(node)}) gives for a sample depends on the "
                "other samples of the batch, or on chance; conversion needs samples to stay apart"
            )
    return three


def _same_samples(two: Tensor, three: Tensor, axes: tuple[bool, ...]) -> bool:
    """Whether a value for two samples is part of that for three."""
    for axis, grows in enumerate(axes):
        if grows:
            three = three.narrow(axis, 0, two.shape[axis])
    return near(three, two)


def _growth(two: Any, three: Any) -> Growth:
    what: Literal["tensor", "sizes"] = "sizes"
    if isinstance(two, Tensor):
        what, two, three = "tensor", tuple(two.shape), tuple(three.shape)
    if isinstance(two, int | float) and not isinstance(two, bool):
        return Growth("number", (two * 3 == three * 2,))
    if isinstance(two, tuple) and all(isinstance(n, int) for n in two):
        axes = tuple(a * 3 == b * 2 for a, b in zip(two, three, strict=True))
        return Growth(what, axes)
    return Growth("other")


_TURNED = {*ACTIVATIONS, "layer_norm", "rms_norm", "weighted"}
"""Kinds that do the same to their first operand wherever its batch is."""


def turn_batch_to_front(traced: Traced) -> None:
    """Let activations, norms and layers have the batch on axis 0, where time is folded into it.

    Attention of PyTorch is ``[L, N, dim]`` inside, unless ``batch_first=True``.
    """
    for node in list(traced.graph.nodes):
        growth = node.meta["growth"]
        if kind_of(traced, node) not in _TURNED or growth.what != "tensor":
            continue
        axis = growth.axes.index(True) if any(growth.axes) else 0
        if axis == 0:
            continue
        with traced.graph.inserting_before(node):
            front = traced.graph.call_method("movedim", (node.args[0], axis, 0))
        with traced.graph.inserting_after(node):
            back = traced.graph.call_method("movedim", (node, 0, axis))
        node.replace_all_uses_with(back, lambda user, back=back: user is not back)
        node.args = (front, *node.args[1:])
        for new in (front, back):
            new.stack_trace = node.stack_trace
        back.meta["growth"] = growth
        axes = (True, *growth.axes[:axis], *growth.axes[axis + 1 :])
        node.meta["growth"] = front.meta["growth"] = Growth("tensor", axes)
    traced.module.recompile()
