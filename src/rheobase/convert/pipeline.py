"""The pipeline: trace, prepare, calibrate, replace, split, mend."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from rheobase._errors import unknown_name, warn_caller
from rheobase.convert.activations import Site
from rheobase.convert.batch import follow_batch, turn_batch_to_front
from rheobase.convert.bias import put_biases, with_fitting_reset
from rheobase.convert.build import split
from rheobase.convert.calibrate import broadcasting, calibrated_thresholds, check_calibration
from rheobase.convert.extremes import warn_of_extremes
from rheobase.convert.kinds import ACTIVATIONS, kind_of
from rheobase.convert.network import ConvertedNetwork, Origin, fast_order
from rheobase.convert.parts import Parts, join_inputs
from rheobase.convert.plain import check_same, few_samples, write_plainly
from rheobase.convert.pool import make_gate
from rheobase.convert.post import calibrate_after
from rheobase.convert.prepare import (
    PASSES,
    add_output_neurons,
    fold_batch_norms,
    own_activations,
    pool_before_activations,
    prune,
)
from rheobase.convert.recipe import (
    Encoding,
    NeuronRule,
    Preparation,
    Readout,
    Recipe,
    Statistic,
)
from rheobase.convert.recipes import RECIPES
from rheobase.convert.softmax import make_softmax_spikes
from rheobase.convert.spiking import NEURONS, Replacement
from rheobase.convert.stem import check_stem
from rheobase.convert.trace import Traced, add_module, line_of, trace
from rheobase.convert.untie import untie_from_spikes

__all__ = ["OPERATORS", "convert"]

Operator = Callable[[Traced, fx.Node, Recipe, int], Replacement | None]

OPERATORS: dict[str, dict[str, Operator]] = {
    "gate": {"max_pool": make_gate},
    "softmax_spikes": {"softmax": make_softmax_spikes},
}
"""Name of a set of operators -> kind of node -> ``(traced, node, recipe, T) -> module``, or None
where the node may stay (a product with a constant, say)."""


@torch.inference_mode(False)
@torch.enable_grad()
def convert(
    ann: nn.Module,
    calibration: Tensor | tuple[Tensor, ...] | None = None,
    *,
    recipe: str | Recipe = "calibration_light",
    T: int = 32,
    labels: Tensor | None = None,
    batch_size: int = 128,
    thresholds: Mapping[str, Tensor | float] | None = None,
    leaves: Iterable[type[nn.Module]] = (),
    **choices: Any,
) -> ConvertedNetwork:
    """Make a spiking network of a trained ANN.

    Args:
        ann: in evaluation mode; it is left as it is. Its control flow may not depend on data.
        calibration: inputs ``[N, ...]`` as the ANN takes them; recipes that need no data
            (`recipes`) take one, for its shape. A tuple for an ANN of several inputs, which are
            then what the spiking network takes.
        recipe: a name of `recipes`, or a record of one's own.
        T: time steps that T-dependent choices are made for, and the network's default.
        labels: of the calibration inputs, for the accuracy in the report.
        batch_size: of the calibration; statistics that average over batches depend on it.
        thresholds: module name of an activation -> threshold, instead of the calibrated one.
        leaves: module classes that tracing keeps whole.
        choices: axes of the recipe (`Recipe`) to replace, such as
            ``statistic=Statistic("percentile", percentile=99.0)``.

    Returns:
        the spiking network; ``net.report()`` says what every layer became.

    Raises:
        ValueError: what can't be converted, naming node, source line and remedy; calibration data
            that is missing, does not fit or makes activations that are not finite; labels that do
            not fit; an unknown name; batch norm in training mode; T below 1, or below what the
            recipe needs; a recipe by which a layer would not fire in a million steps.
        TypeError: a network, calibration data or T of another kind.

    >>> from rheobase.convert import convert
    >>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> convert(ann, torch.rand(16, 4), recipe="rueckauer", T=8)(torch.rand(3, 4)).shape
    torch.Size([8, 3, 2])
    """
    rule = resolved(recipe, choices)
    if not isinstance(T, int) or isinstance(T, bool):
        raise TypeError(f"T is a whole number of time steps, got {T!r}")
    if T < 1:
        raise ValueError(f"a converted network runs at least one time step, got T={T}")
    probe = rule.neuron.probe
    if T + rule.readout.delay < probe:
        raise ValueError(
            f"recipe {rule.name!r} looks at its neurons' first {probe} steps, but only {T} are to "
            f"be run; take T={probe} or more, or a neuron rule with a smaller probe"
        )
    parts = None
    if isinstance(calibration, tuple):
        parts = Parts.of(calibration)
        calibration = parts.pack(calibration)
    with torch.no_grad():
        inputs = fast_order(check_calibration(calibration, rule))
    if inputs.is_inference():  # some recipes train, on tensors that autograd may keep
        inputs = inputs.clone()
    _check_labels(labels, inputs)
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, got {batch_size}")
    few = few_samples(inputs)
    traced = trace(ann, [few] if parts is None else parts.unpack(few), leaves)
    if parts is not None:
        join_inputs(traced, parts)
    write_plainly(traced, few)
    _prepare(traced, rule)
    rule = with_fitting_reset(traced, rule)
    check_same(traced, copy.deepcopy(ann).eval(), few, parts)
    _add_to_graph(traced, rule, few)
    untie_from_spikes(traced, len(few), follow_batch(traced, few))
    turn_batch_to_front(traced)
    sites = _find_sites(traced, rule)
    found = calibrated_thresholds(traced, sites, rule, T, inputs, batch_size)
    found |= _given_thresholds(thresholds or {}, sites, inputs)
    prepared = Traced(copy.deepcopy(traced.module), traced.leaves)
    _put_operators(traced, rule, T)
    _put_neurons(traced, sites, found, rule, T)
    check_stem(traced, rule, lambda kind: _operator(rule, kind) is not None)
    put_biases(traced, rule, T)
    stem, body = split(traced, rule)
    net = ConvertedNetwork(stem, body, rule, T, parts).eval()
    calibrate_after(net, prepared, inputs)
    net.origin = Origin(prepared, inputs, labels)
    warn_of_extremes(net, prepared, inputs[:8])
    return net


def resolved(recipe: str | Recipe, choices: dict[str, Any]) -> Recipe:
    """The recipe with some of its choices replaced.

    Raises:
        ValueError: no recipe, or none of its axes, has that name.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(unknown_name("recipe", recipe, RECIPES))
        recipe = RECIPES[recipe]
    if not isinstance(recipe, Recipe):
        raise TypeError(f"a recipe is a name of rheobase.convert.recipes() or a Recipe: {recipe!r}")
    axes = [field.name for field in dataclasses.fields(Recipe)]
    for name in choices:
        if name not in axes:
            raise ValueError(unknown_name("axis of a recipe", name, axes))
    rule = dataclasses.replace(recipe, **choices)
    for name, kind in _RECORDS.items():
        if not isinstance(getattr(rule, name), kind):
            raise TypeError(
                f"{name} of a recipe is a {kind.__name__}, got {getattr(rule, name)!r}; write "
                f"{name}={kind.__name__}(...)"
            )
    _check_together(rule)
    return rule


_RECORDS: dict[str, type] = {
    "prepare": Preparation,
    "statistic": Statistic,
    "neuron": NeuronRule,
    "encoding": Encoding,
    "readout": Readout,
}


def _check_together(rule: Recipe) -> None:
    """Refuse choices that make no sense with each other, saying why."""
    means = rule.encoding.convention == "mean"
    if means and rule.statistic.shared_by_steps:
        raise ValueError(
            f"recipe {rule.name!r} codes values as means over T, but its thresholds are shared by "
            "T steps, so that no neuron could send more than a T-th of its activation; take "
            "Encoding('impulse', bias='spread'), or shared_by_steps=False"
        )
    codes = rule.neuron.kind in ("few_spikes", "first_spike", "integer_code", *_DIGITS)
    mended = [step.kind for step in rule.post if step.kind != "compensate"]
    if mended and (codes or not means):
        raise ValueError(
            f"recipe {rule.name!r} mends by {mended[0]!r}, which compares means over T of neurons "
            "that count; it has no meaning for "
            + (f"the code {rule.neuron.kind!r}" if codes else "values that are sums over T")
            + "; take post=()"
        )
    if codes and rule.statistic.kind == "max_current":
        raise ValueError(
            f"recipe {rule.name!r} balances thresholds by currents, which the code "
            f"{rule.neuron.kind!r} does not have; take another statistic"
        )


_DIGITS = ("signed_digits", "greedy_code", "salient_code")


def _check_labels(labels: Tensor | None, inputs: Tensor) -> None:
    if labels is None:
        return
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels are a tensor of classes, [N]; got a {type(labels).__name__}")
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels have shape {list(labels.shape)}, but there are {len(inputs)} calibration "
            "inputs: give one class for each, [N] of whole numbers"
        )


def _prepare(traced: Traced, recipe: Recipe) -> None:
    """Change the graph as the recipe says; what it computes stays the same."""
    prune(traced)
    own_activations(traced)
    if recipe.prepare.fold_batch_norm:
        fold_batch_norms(traced)
    if recipe.prepare.max_pool == "before_spikes":
        pool_before_activations(traced)


@torch.no_grad()
def _add_to_graph(traced: Traced, recipe: Recipe, few: Tensor) -> None:
    """Neurons at the output, and the recipe's own passes."""
    if recipe.readout.kind == "spikes":
        add_output_neurons(traced)
    for name in recipe.prepare.passes:
        if name not in PASSES:
            raise ValueError(unknown_name("graph pass", name, PASSES))
    if not recipe.prepare.passes:
        return
    before = traced.module(few)
    for name in recipe.prepare.passes:
        PASSES[name](traced, recipe)
    apart = (traced.module(few) - before).abs().mean() / before.abs().mean()
    if apart > _MOST_CHANGED:
        warn_caller(
            f"the functions or weights by which recipe {recipe.name!r} approximates this network's "
            f"move its output by {100.0 * apart:.0f} % on three inputs, before any spike; take a "
            "recipe that keeps them, such as 'ecmt'"
        )


_MOST_CHANGED = 0.1


def _find_sites(traced: Traced, recipe: Recipe) -> list[Site]:
    """Every activation that a neuron will replace, in order of execution.

    Raises:
        ValueError: the recipe takes no activation of that kind.
    """
    sites = []
    for node in traced.graph.nodes:
        kind = kind_of(traced, node)
        if kind in recipe.source:
            module = traced.owner(node)
            assert module is not None and kind is not None
            sites.append(Site(str(node.target), kind, line_of(node), module))
        elif kind in ACTIVATIONS and _operator(recipe, kind) is None:
            able = [r.name for r in RECIPES.values() if kind in r.source or _computes(r)]
            raise ValueError(
                f"node {node.name!r} ({line_of(node)}) is of kind {kind!r}, which recipe "
                f"{recipe.name!r} does not convert (it takes {', '.join(recipe.source)}); "
                + (f"take {_some(able)}" if able else "train the network with another")
            )
    return sites


def _computes(recipe: Recipe) -> bool:
    """Whether it has operators for all activations."""
    return "accumulated" in recipe.prepare.operators


def _some(names: list[str], most: int = 4) -> str:
    """The first of many."""
    more = f" or {len(names) - most} others" if len(names) > most else ""
    return " or ".join(names[:most]) + more


def _given_thresholds(
    given: Mapping[str, Tensor | float], sites: list[Site], like: Tensor
) -> dict[str, Tensor]:
    """The user's thresholds, in the shapes that neurons take."""
    by_name = {site.name: site for site in sites}
    for name in given:
        if name not in by_name:
            raise ValueError(unknown_name("activation", name, by_name))
    found = {
        name: broadcasting(torch.as_tensor(value).to(like), by_name[name])
        for name, value in given.items()
    }
    for name, value in found.items():
        shape = by_name[name].shape
        if not _fits(value, shape):
            raise ValueError(
                f"the threshold of {name!r} has shape {list(value.shape)}, but one sample of that "
                f"activation is {list(shape)}: give one number, or one for each channel or neuron"
            )
    return found


def _fits(value: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a value broadcasts to a shape."""
    pairs = zip(reversed(shape), reversed(value.shape), strict=False)
    return value.dim() <= len(shape) and all(given in (1, size) for size, given in pairs)


def _operator(recipe: Recipe, kind: str | None) -> Operator | None:
    """What the recipe has for a kind of node."""
    for name in recipe.prepare.operators:
        if name not in OPERATORS:
            raise ValueError(unknown_name("set of spiking operators", name, OPERATORS))
        if kind in OPERATORS[name]:
            return OPERATORS[name][kind]
    return None


def _put_operators(traced: Traced, recipe: Recipe, steps: int) -> None:
    """Replace what an operator set has something for."""
    for node in list(traced.graph.nodes):
        kind = kind_of(traced, node)
        make = _operator(recipe, kind) if kind not in recipe.source else None
        module = None if make is None else make(traced, node, recipe, steps)
        if module is None:
            continue
        name = add_module(traced, f"{node.name}_spiking", module)
        with traced.graph.inserting_after(node):
            called = traced.graph.call_module(name, node.args, dict(node.kwargs))
        called.meta, called.stack_trace = dict(node.meta), node.stack_trace
        node.replace_all_uses_with(called)
        traced.graph.erase_node(node)
    traced.module.recompile()


def _put_neurons(
    traced: Traced, sites: list[Site], thresholds: dict[str, Tensor], recipe: Recipe, steps: int
) -> None:
    """Replace every activation by its neuron."""
    kind = recipe.neuron.kind
    if kind not in NEURONS:
        raise ValueError(unknown_name("neuron rule", kind, NEURONS))
    for site in sites:
        module = NEURONS[kind](site, thresholds[site.name], recipe, steps)
        traced.module.set_submodule(site.name, module)
