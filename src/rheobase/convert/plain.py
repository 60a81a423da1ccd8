"""A traced network written plainly: nothing in place, nothing that hangs on memory's order."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from rheobase.convert.parts import Parts
from rheobase.convert.spelling import spell_out
from rheobase.convert.trace import Traced, line_of, record

__all__ = ["check_same", "few_samples", "near", "picks", "values_of", "write_plainly"]

_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imatmul: operator.matmul,
}
_CLOSE = 1e-3  # relative mean distance; rounding leaves 1e-6, a mistake more than this


def few_samples(inputs: Tensor) -> Tensor:
    """Three samples of ``[N, ...]`` that differ, where one alone was given as well."""
    chosen = inputs[torch.arange(3, device=inputs.device) % len(inputs)].clone()
    if len(inputs) < 3 and inputs.is_floating_point():
        size = torch.tensor([1.0, 0.5, 0.25]).to(chosen)
        chosen = chosen * size.view(-1, *[1] * (chosen.dim() - 1))
    return chosen


def values_of(traced: Traced, x: Tensor) -> dict[fx.Node, Any]:
    """Every node's value.

    Raises:
        ValueError: the network does not take such inputs.
    """
    values: dict[fx.Node, Any] = {}
    try:
        record(traced, x, values.__setitem__)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        stuck = next(node for node in traced.graph.nodes if node not in values)
        where = f"node {stuck.name!r} ({line_of(stuck)}) fails"
        raise _not_taken(x, error, where) from error
    return values


def _not_taken(x: Tensor, error: Exception, where: str = "it fails") -> ValueError:
    what = str(error).split("\n")[0]
    shape = ", ".join(["N", *map(str, x.shape[1:])])
    return ValueError(
        f"the network does not take calibration inputs of shape [{shape}] and {x.dtype}: {where} "
        f"({what}); give inputs for which the network itself, ann(inputs), runs"
    )


def write_plainly(traced: Traced, example: Tensor) -> None:
    """Let every operation give a value of its own, in place of changing that of another.

    Whoever looks at a tensor after it was changed looks at what changed it then. Operations are
    spelt as `spell_out` does.

    Raises:
        ValueError: a tensor is changed of which another node has a view that is used afterwards,
            or the network does not take such inputs.
    """
    values = values_of(traced, example.clone(memory_format=torch.contiguous_format))
    for node, value in values.items():
        node.meta["picks"] = picks(value)
    spell_out(traced, values)
    nodes = list(traced.graph.nodes)
    values = {node: values[node] for node in nodes if node in values}
    place = {node: number for number, node in enumerate(nodes)}
    for module in traced.module.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
            module.was_inplace = True  # type: ignore[assignment]
    for node in nodes:
        changed = node.args[0] if node.args else None
        if not isinstance(changed, fx.Node) or not _changes(traced, node):
            continue
        if not isinstance(values[changed], Tensor):
            continue
        _check_views(node, changed, values, place)
        for user in list(changed.users):
            if place[user] > place[node]:
                user.replace_input_with(changed, node)
        _out_of_place(node)
    for module in traced.module.modules():
        if hasattr(module, "was_inplace"):
            del module.was_inplace
    traced.graph.lint()
    traced.module.recompile()


def picks(value: Any) -> bool:
    """Whether a value is a mask or an index, which no sequence codes."""
    return isinstance(value, Tensor) and not value.is_floating_point()


def _changes(traced: Traced, node: fx.Node) -> bool:
    """Whether a node changes its first operand."""
    if node.op == "call_module":
        return hasattr(traced.owner(node), "was_inplace")
    if node.op == "call_method":
        return _ends_in_place(str(node.target))
    if node.op == "call_function":
        named = _ends_in_place(getattr(node.target, "__name__", ""))
        return named or node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))
    return False


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _check_views(
    node: fx.Node, changed: fx.Node, values: dict[fx.Node, Any], place: dict[fx.Node, int]
) -> None:
    memory = values[changed].untyped_storage().data_ptr()
    for other, value in values.items():
        if not isinstance(value, Tensor) or other in (node, changed) or place[other] > place[node]:
            continue
        later = any(place[user] > place[node] for user in other.users)
        if later and value.untyped_storage().data_ptr() == memory:
            raise ValueError(
                f"node {node.name!r} ({line_of(node)}) changes a tensor in place, and "
                f"{other.name!r} ({line_of(other)}), which shares its memory, is used afterwards: "
                "write it so that it makes a new tensor (without inplace, without a trailing _)"
            )


def _out_of_place(node: fx.Node) -> None:
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
    if node.op == "call_method" and hasattr(Tensor, str(node.target)[:-1]):
        node.target = str(node.target)[:-1]
    elif node.op == "call_function":
        name, plain = str(getattr(node.target, "__name__", "")), None
        if _ends_in_place(name):
            plain = getattr(torch, name[:-1], None) or getattr(F, name[:-1], None)
        node.target = _IN_PLACE.get(node.target, plain or node.target)


def check_same(
    traced: Traced, ann: torch.nn.Module, example: Tensor, parts: Parts | None = None
) -> None:
    """The graph still computes what the network does.

    Args:
        traced: its graph.
        ann: the network, in evaluation mode.
        example: ``[N, ...]``.
        parts: the inputs that lie in it, if the network takes several.

    Raises:
        ValueError: it does not, the network does not take such inputs, or gives several tensors.
    """
    for name, weight in ann.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(
                f"weights {name!r} of the network are not finite; look at its training"
            )
    chance = torch.get_rng_state()  # of masks drawn in evaluation too: the same for both
    with torch.no_grad():
        try:
            whole = example.clone(memory_format=torch.contiguous_format)
            expected = ann(whole) if parts is None else ann(*parts.unpack(whole))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise _not_taken(example, error) from error
        torch.set_rng_state(chance)
        found = traced.module(example)
    tensors = _tensors_of(expected)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the network returns a {type(expected).__name__} ({', '.join(tensors)}); conversion "
            "needs one tensor, [N, ...]: wrap the network in a module that returns that one"
        )
    if not near(found, *tensors.values()):
        raise ValueError(
            f"the graph of {type(ann).__name__} does not compute what the network does: its output "
            "hangs on chance, on calls before, or on += for a tensor that has a second name, which "
            "no graph shows; write a function of the input alone, and y = y + x for y += x"
        )


def _tensors_of(value: Any) -> dict[str, Tensor]:
    """The tensors of an output, by name or place."""
    if isinstance(value, Tensor):
        return {"0": value}
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        value = vars(value)
    return {str(name): part for name, part in value.items() if isinstance(part, Tensor)}


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by rounding at most."""
    if found.shape != expected.shape:
        return False
    found, expected = (torch.nan_to_num(x.double(), posinf=0, neginf=0) for x in (found, expected))
    apart = (found - expected).abs().mean()
    return bool(apart <= _CLOSE * expected.abs().mean()) or not found.numel()
