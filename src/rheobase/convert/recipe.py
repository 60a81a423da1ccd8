"""The record of a conversion method: one choice on each of eight axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rheobase._errors import unknown_name

__all__ = [
    "Convention",
    "Encoding",
    "NeuronRule",
    "PostCalibration",
    "Preparation",
    "Readout",
    "Recipe",
    "Statistic",
]

Convention = Literal["mean", "sum"]
"""How a value is coded: the mean over T of what is sent, or its sum over T."""

Granularity = Literal["layer", "channel", "neuron"]


def _check(record: Any) -> None:
    """Every choice among words is one of them, every count is large enough.

    Raises:
        ValueError: one is not.
    """
    kind = type(record).__name__
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ValueError(unknown_name(f"{name} of {kind}", str(value), get_args(hint)))
        if get_origin(hint) is tuple and not isinstance(value, tuple):
            raise ValueError(f"{name} of {kind} is a tuple, ({value!r},); got {value!r}")
        least = _LEAST.get(name, 1 if (kind, name) == ("Statistic", "iterations") else None)
        if least is not None and value is not None and not value >= least:
            raise ValueError(f"{name} of {kind} must be at least {least}, got {value}")
        if name in ("scale", "levels") and not value > 0:
            raise ValueError(f"{name} of {kind} must be above 0, got {value}")


_LEAST = {"members": 1, "probe": 0, "delay": 0, "samples": 1, "batch_size": 1}


@dataclass(frozen=True)
class Preparation:
    """How the graph is made ready (axis P).

    Attributes:
        fold_batch_norm: put batch norm into the weights of the layer before it.
        max_pool: "before_spikes" pools the current instead of the spikes (exact, since activations
            grow with it), "gate" passes the spikes of the unit with the largest sum so far.
        shortcut: "threshold" sends spikes of the size of the threshold, so that sums need nothing.
        passes: names of further changes of the graph (`rheobase.convert.PASSES`).
        operators: names of sets of spiking operators (`rheobase.convert.OPERATORS`) that replace
            what is neither linear nor an activation; the first set that has the kind wins.
    """

    fold_batch_norm: bool = True
    max_pool: Literal["before_spikes", "gate"] = "before_spikes"
    passes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ("gate",)

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)


@dataclass(frozen=True)
class Statistic:
    """What the threshold is made of (axis S).

    Attributes:
        kind: a name of `rheobase.convert.STATISTICS`.
        percentile: of "percentile", in percent.
        nonzero: leave zeros out of the percentile.
        nearest: take the nearest value instead of interpolating between two.
        batches: how batches are joined: all values as one, the largest result, or a moving average
            of results in which each new batch weighs ``momentum``.
        momentum: see ``batches``.
        scale: the result is multiplied by it.
        iterations: how often to go through the data; None goes on until that is of no more use (40
            times at most).
        batch_size: inputs at a time; None takes the call's. "local_balance" makes a step for each.
        shared_by_steps: divide by T: where values are sums over T, each of T spikes then carries a
            T-th of the threshold.
        as_released: as the authors' code has it where that differs from the paper ("diehl_data"
            divides by the factor applied before, not by the scale: from the third layer on wrong).
    """

    kind: str = "max"
    percentile: float = 99.9
    nonzero: bool = False
    nearest: bool = False
    batches: Literal["pooled", "largest", "average"] = "pooled"
    momentum: float = 0.1
    scale: float = 1.0
    iterations: int | None = 1
    batch_size: int | None = None
    shared_by_steps: bool = False
    as_released: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)


@dataclass(frozen=True)
class NeuronRule:
    """The neuron that takes an activation's place (axis N).

    Attributes:
        kind: a name of `rheobase.convert.NEURONS`.
        reset: after a spike, subtract the threshold or set to zero; "zero_unless_biased" sets to
            zero in networks without biases, which papers with that reset train, else subtracts.
        strict: fire above the threshold only, not at it.
        start: first membrane, in thresholds.
        shift: add threshold / (2 T) to every step's current.
        levels: largest number of spikes in a step; of "few_spikes", nothing.
        members: neurons of a group, which share the threshold: a spike is threshold / members.
        lowest: the membrane is held at or above it, in thresholds; None holds nothing.
        negative: a negative spike takes back a positive one where the membrane is at or below minus
            this, in thresholds.
        tolerance: instead of ``negative``, in the unit of the membrane.
        scaled: measure the current in thresholds first (released code of SRP and COS): the same
            but for rounding.
        probe: steps of the run that comes first (the residual mask of SRP, the offset of COS).
        delayed: fire by the membrane of the step before (one step later a layer).
    """

    kind: str = "integrate"
    reset: Literal["subtract", "zero", "zero_unless_biased"] = "subtract"
    strict: bool = False
    start: float = 0.0
    shift: bool = False
    levels: float = 1
    members: int = 1
    lowest: float | None = None
    negative: float = 1.0
    tolerance: float | None = None
    scaled: Literal["no", "divided", "multiplied"] = "no"
    probe: int = 0
    delayed: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)


@dataclass(frozen=True)
class PostCalibration:
    """What is mended after the neurons are in (axis C).

    Attributes:
        kind: a name of `rheobase.convert.POST`.
        samples: how many calibration inputs it uses; None uses all.
        iterations: optimiser steps of a layer.
        learning_rate: of the optimiser.
        batch_size: of the optimiser.
    """

    kind: str
    samples: int | None = None
    iterations: int = 0
    learning_rate: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)


@dataclass(frozen=True)
class Encoding:
    """How the input enters (axis E).

    Attributes:
        kind: "current" gives it at every step, "impulse" at the first alone, "poisson" as signed
            spikes of that probability.
        bias: biases at every step, at the first step alone, or a T-th of them at every step.
    """

    kind: Literal["current", "impulse", "poisson"] = "current"
    bias: Literal["every step", "once", "spread"] = "every step"

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)

    @property
    def convention(self) -> Convention:
        """Whether values are means over T or sums over T."""
        return "sum" if self.kind == "impulse" else "mean"


@dataclass(frozen=True)
class Readout:
    """What the network gives at every step (axis R).

    Attributes:
        kind: the last layer's current, or the spikes of a layer of neurons behind it.
        delay: how many first steps the readout leaves out.
    """

    kind: Literal["current", "spikes"] = "current"
    delay: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)


@dataclass(frozen=True)
class Recipe:
    """A conversion method as a choice on eight axes.

    Attributes:
        name: what `convert` calls it.
        paper: its source.
        source: kinds of activation that it takes (axis A); what else the network has needs
            ``prepare.operators`` or another recipe.
        prepare: axis P.
        statistic: axis S.
        granularity: one threshold for a layer, a channel or a neuron (axis G).
        neuron: axis N.
        post: axis C, in this order.
        encoding: axis E.
        readout: axis R.
        needs: what it asks for besides weights: "data", "labels", "training".
    """

    name: str
    paper: str
    source: tuple[str, ...] = ("relu", "relu6", "clip")
    prepare: Preparation = field(default_factory=Preparation)
    statistic: Statistic = field(default_factory=Statistic)
    granularity: Granularity = "layer"
    neuron: NeuronRule = field(default_factory=NeuronRule)
    post: tuple[PostCalibration, ...] = ()
    encoding: Encoding = field(default_factory=Encoding)
    readout: Readout = field(default_factory=Readout)
    needs: tuple[str, ...] = ("data",)

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        _check(self)
