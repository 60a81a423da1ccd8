"""From a graph with replacements to a network: the part that changes over time, and the rest."""

from __future__ import annotations

import operator
from typing import Any, Literal

from torch import Tensor, fx, nn

from rheobase.convert.encode import ENCODERS, Impulse
from rheobase.convert.kinds import BILINEAR, kind_of, occurrences, passes_spikes
from rheobase.convert.recipe import Convention, Recipe
from rheobase.convert.spiking import Replacement, folded
from rheobase.convert.trace import Traced, add_module, line_of

__all__ = ["cannot", "split"]

Time = Literal["free", "constant", "changing"]
"""Of a value: independent of the input, the same at every step, or not."""


def split(traced: Traced, recipe: Recipe) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The graph as two: a stem computed once, and a body computed at every step.

    Args:
        traced: its activations and operators are `Replacement` modules by now, and `follow_batch`
            has seen it before.
        recipe: how the input is encoded.

    Raises:
        ValueError: an operation that spikes can't pass is left, or nothing changes over time.
    """
    if recipe.encoding.kind == "poisson" or recipe.encoding.bias == "spread":
        _encode(traced, recipe)
    times = _times(traced)
    _check(traced, times, recipe)
    return _Splitter(traced, times, recipe.encoding.convention).split()


def repeated(x: Tensor, steps: int) -> Tensor:
    """What does not change over time, at every step: ``[N, ...] -> [T * N, ...]``."""
    return folded(x.expand(steps, *x.shape))


def sizes_at_every_step(size: Any, axes: tuple[bool, ...], steps: int) -> Any:
    """A shape in which every size that grows with the batch holds ``steps`` batches."""
    return tuple(n * steps if grows else n for n, grows in zip(size, axes, strict=True))


def _encode(traced: Traced, recipe: Recipe) -> None:
    """Put an encoder behind the input."""
    placeholder = next(n for n in traced.graph.nodes if n.op == "placeholder")
    name = add_module(traced, "encoder", ENCODERS[recipe.encoding.kind]())
    with traced.graph.inserting_after(placeholder):
        encoder = traced.graph.call_module(name, (placeholder,))
    encoder.meta = dict(placeholder.meta)
    placeholder.replace_all_uses_with(encoder, lambda user: user is not encoder)
    traced.module.recompile()


def _times(traced: Traced) -> dict[fx.Node, Time]:
    times: dict[fx.Node, Time] = {}
    for node in traced.graph.nodes:
        inputs = {times[n] for n in node.all_input_nodes}
        if isinstance(traced.owner(node), Replacement) or "changing" in inputs:
            times[node] = "changing"
        elif node.op == "placeholder" or "constant" in inputs:
            times[node] = "constant"
        else:
            times[node] = "free"
    return times


def _check(traced: Traced, times: dict[fx.Node, Time], recipe: Recipe) -> None:
    convention = recipe.encoding.convention
    for node in traced.graph.nodes:
        if node.op == "output" or times[node] != "changing":
            continue
        module = traced.owner(node)
        _check_batch(traced, node, times)
        if isinstance(module, Replacement):
            if convention not in module.conventions:
                raise ValueError(
                    f"{node.name!r} ({line_of(node)}) became a {type(module).__name__}, which "
                    f"codes values as the {' or '.join(module.conventions)} over T, but recipe "
                    f"{recipe.name!r} codes them as the {convention}; mixing both would be wrong: "
                    "take operators of one convention"
                )
            continue
        if _is_size(node):
            continue
        kind = kind_of(traced, node)
        operands = [n for n in node.all_input_nodes if n.meta["growth"].what != "number"]
        changing = occurrences(node, [n for n in operands if times[n] == "changing"])
        other = node.args[_NOT_LINEAR[kind]] if kind in _NOT_LINEAR and node.args[1:] else None
        inverted = isinstance(other, fx.Node) and other in operands and times[other] == "changing"
        if kind == "fill" and convention == "sum":
            _check_fill(node)
        if kind is None or inverted or not passes_spikes(kind, changing):
            raise ValueError(cannot(traced, node, kind, recipe))
    output = next(n for n in traced.graph.nodes if n.op == "output")
    if times[output] != "changing":
        unknown = [n for n in traced.graph.nodes if _is_unknown(traced, n)]
        raise ValueError(
            "this network has no activation to convert: its output does not depend on any that "
            f"recipe {recipe.name!r} takes ({', '.join(recipe.source)})"
            + "".join(f"; {n.name!r} ({line_of(n)}) is none that is known" for n in unknown[:3])
        )


_NOT_LINEAR = {"divide": 1, "where": 0}
"""Kinds -> the place of the argument in which they are not linear."""


def _check_fill(node: fx.Node) -> None:
    """A number that is filled in at every step would count T times, unless it is 0 or endless."""
    value = node.kwargs.get("value", node.args[2] if len(node.args) > 2 else None)
    if not isinstance(value, int | float) or 0.0 < abs(value) < 1e4:
        raise ValueError(
            f"node {node.name!r} ({line_of(node)}) fills in {value} at every step, which would "
            "count T times in a recipe of sums; fill in 0 or -inf, or take a recipe of means"
        )


def _is_size(node: fx.Node) -> bool:
    """Whether it makes a number of numbers: one that is the same for any batch, at any step."""
    growth = node.meta["growth"]
    sizes = all(n.meta["growth"].what in ("number", "sizes") for n in node.all_input_nodes)
    return growth.what == "number" and sizes and not any(growth.axes)


def _is_unknown(traced: Traced, node: fx.Node) -> bool:
    return node.op.startswith("call") and kind_of(traced, node) is None


def _check_batch(traced: Traced, node: fx.Node, times: dict[fx.Node, Time]) -> None:
    """Time is folded into axis 0: nothing may reduce it, or move it to neurons."""
    where = f"node {node.name!r} ({line_of(node)})"
    axes = node.meta["growth"].axes if node.meta["growth"].what == "tensor" else (True,)
    if axes and not any(axes) and kind_of(traced, node) != "like":
        raise ValueError(f"{where} takes the batch out of a tensor; conversion needs it on axis 0")
    if isinstance(traced.owner(node), Replacement):
        for before in node.all_input_nodes:
            growth = before.meta["growth"]
            if growth.what == "tensor" and any(growth.axes) and not growth.axes[0]:
                raise ValueError(
                    f"{where} gets its batch on axis {growth.axes.index(True)}; conversion needs "
                    "it on axis 0: turn it there before (movedim), and back behind"
                )


def cannot(traced: Traced, node: fx.Node, kind: str | None, recipe: Recipe) -> str:
    """What to say of a node that can't become spikes."""
    module = traced.owner(node)
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    what = type(module).__name__ if module is not None else f"{target}"
    start = f"node {node.name!r} ({what}, {line_of(node)}) "
    if isinstance(module, nn.RNNBase):
        return start + (
            "goes through its input in time, which a spiking network's steps are already; take a "
            "rheobase.layers.Recurrent in its place and train that"
        )
    if kind is None:
        return start + (
            "is of no kind that conversion knows; if it is linear in its input, say so with "
            "rheobase.convert.KINDS[...] = 'weighted', else register an operator for it "
            "(see rheobase.convert)"
        )
    return start + (
        f"is of kind {kind!r}: spikes can't pass it, and recipe {recipe.name!r} has no operator "
        f"for it (its operators: {', '.join(recipe.prepare.operators) or 'none'}); take a recipe "
        "that has one, such as 'ecmt', or write the network without it"
    )


class _Splitter:
    """Copies nodes into the two graphs."""

    def __init__(self, traced: Traced, times: dict[fx.Node, Time], convention: Convention) -> None:
        self.traced = traced
        self.convention = convention
        self.times = times
        self.stem = fx.Graph()
        self.body = fx.Graph()
        self.in_stem: dict[fx.Node, fx.Node] = {}
        self.in_body: dict[fx.Node, fx.Node] = {}
        self.every_step: dict[tuple[fx.Node, Convention], fx.Node] = {}

    def split(self) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Both graphs as modules."""
        nodes = list(self.traced.graph.nodes)
        for node in nodes:
            if self.times[node] != "changing" and node.op != "output":
                self.in_stem[node] = self.stem.node_copy(node, self.in_stem.__getitem__)
        boundary = [n for n in nodes if self.times[n] == "constant" and self._leaves(n)]
        for node in boundary:
            self.in_body[node] = self.body.placeholder(node.name)
        self.steps = self.body.placeholder("steps", default_value=1)
        self.stem.output(tuple(self.in_stem[n] for n in boundary))
        for node in nodes:
            if self.times[node] == "free" and node.op != "output":
                self.in_body[node] = self.body.node_copy(node, self.in_body.__getitem__)
            elif self.times[node] == "changing":
                self._copy_changing(node)
        root = self.traced.module
        body = fx.GraphModule(root, self.body, "Body")
        body.graph.eliminate_dead_code()
        body.recompile()
        return fx.GraphModule(root, self.stem, "Stem"), body

    def _leaves(self, node: fx.Node) -> bool:
        return any(self.times[user] == "changing" for user in node.users)

    def _copy_changing(self, node: fx.Node) -> None:
        module = self.traced.owner(node)
        if not isinstance(module, Replacement):
            # A factor is the same at every step, whatever the other factor's sum stands for.
            factor = kind_of(self.traced, node) in BILINEAR
            repeat = self._as_factor if factor else self._at_every_step
            self.in_body[node] = self.body.node_copy(node, repeat)
            return
        first = node.args[0] if node.args else None
        once = (
            module.takes_constant
            and (self.convention == "mean" or isinstance(module, Impulse))
            and isinstance(first, fx.Node)
            and self.times[first] == "constant"
        )
        with_steps = {"steps": self.steps} | ({"constant": True} if once else {})
        args = fx.map_arg(
            node.args, lambda n: self.in_body[n] if once and n is first else self._at_every_step(n)
        )
        kwargs = fx.map_arg(node.kwargs, self._at_every_step)
        copy = self.body.call_module(str(node.target), args, {**kwargs, **with_steps})
        copy.meta = dict(node.meta)
        self.in_body[node] = copy

    def _as_factor(self, node: fx.Node) -> fx.Node:
        return self._at_every_step(node, "mean")

    def _at_every_step(self, node: fx.Node, convention: Convention | None = None) -> fx.Node:
        """The node's value as what changes over time meets it."""
        inside = self.in_body[node]
        if self.times[node] != "constant":
            return inside
        coded = "mean" if node.meta.get("picks") else convention or self.convention
        if (node, coded) not in self.every_step:
            self.every_step[node, coded] = self._repeat(node, inside, coded)
        return self.every_step[node, coded]

    def _repeat(self, node: fx.Node, inside: fx.Node, convention: Convention) -> fx.Node:
        growth = node.meta["growth"]
        if not any(growth.axes):
            return inside
        if growth.what == "number":
            return self.body.call_function(operator.mul, (inside, self.steps))
        if growth.what == "sizes":
            return self.body.call_function(sizes_at_every_step, (inside, growth.axes, self.steps))
        axis = growth.axes.index(True)
        first = inside if axis == 0 else self.body.call_method("movedim", (inside, axis, 0))
        if convention == "sum":
            # What is coded by a sum comes whole at the first step.
            name = add_module(self.traced, f"{node.name}_impulse", Impulse())
            every = self.body.call_module(name, (first,), {"steps": self.steps})
        else:
            every = self.body.call_function(repeated, (first, self.steps))
        return every if axis == 0 else self.body.call_method("movedim", (every, 0, axis))
