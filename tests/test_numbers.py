"""Every constructor refuses what is no number, no finite one, or no size, by its annotations."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from rheobase import layers, learn, neurons, surrogate
from rheobase._numbers import NumbersChecked, Size, numbers_checked
from rheobase.train import losses, optim

PARTS = ("input", "q", "k", "v", "neuron", "proj")
NEEDED: dict[str, dict[str, Any]] = {
    "BGN": {"channels": 8},
    "BNTT": {"channels": 8, "steps": 2},
    "Biophysical": {"v_threshold": 1.0, "v_reset": 0.0},
    "ClampQuant": {"levels": 4},
    "DeformableConv2d": {"channels": 4, "width": 4},
    "Distillation": {"teacher": nn.Linear(2, 2)},
    "DropPath": {"p": 0.5},
    "FirstStepBias": {"layer": nn.Linear(2, 2)},
    "GLIF": {"T": 4, "gates": (0.6, 0.6, 0.6)},
    "IMLIF": {"T": 4},
    "Int8Conv2d": {"conv": nn.Conv2d(2, 2, 1)},
    "Int8Linear": {"linear": nn.Linear(2, 2)},
    "LAMB": {"params": [nn.Parameter(torch.zeros(1))]},
    "Lapicque": {"beta": 0.5},
    "MPBN": {"channels": 8},
    "MaskedPSN": {"T": 4, "k": 2},
    "MembraneTerm": {"loss": losses.im_loss},
    "MembraneSelfAttention": {"heads": 1} | {part: nn.Identity() for part in PARTS},
    "MultiDimensionalAttention": {"kind": "TCSA", "steps": 16, "channels": 16},
    "NeuNorm": {"shape": (2, 4, 4)},
    "PSN": {"T": 4},
    "Quantise": {"levels": 4},
    "RateIF": {"v_threshold": torch.tensor(1.0)},
    "Recurrent": {"features": 2, "neuron": neurons.IF()},
    "RewardedSTDP": {"stdp": learn.PairSTDP(), "weight": torch.zeros(1, 1)},
    "STSC": {"channels": 8},
    "SalientCode": {"steps": torch.tensor([1, 2])},
    "SlidingPSN": {"k": 2},
    "SpikingSelfAttention": {"dim": 8, "heads": 2, "make_neuron": neurons.IF},
    "StepsTerm": {"weight": 1.0},
    "TAB": {"channels": 8, "steps": 2},
    "TCJA": {"steps": 4, "channels": 4},
    "TEBN": {"channels": 8, "steps": 2},
    "TemporalAttention": {"steps": 16},
    "ThresholdDependentBatchNorm2d": {"channels": 8},
}

# What only holds values that something else has made, or takes its numbers from checked parts.
RECORDS = {
    "ConvNormNeuron", "Lesson", "Membrane", "MembraneBlock", "MembraneMlp", "MembraneStem",
    "MetaConvBlock", "NeuronConvNorm", "Recomputation", "RepConv", "SpikingMlp", "SurrogateRow",
    "TemperatureChoice",
}  # fmt: skip
NAMES = {"Limit", "Positive", "Share", "Size", "float", "int"}


def numbers(cls: type) -> dict[str, set[str]]:
    """The arguments of a class's own constructor that are numbers, with their types."""
    found = {}
    for argument in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        types = set(str(argument.annotation).split(" | "))
        if types & NAMES:
            found[argument.name] = types
    return found


def constructors() -> Iterator[type]:
    modules = (neurons, surrogate, layers, learn, losses, optim)
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    for cls in (public[name] for name in sorted(public) if inspect.isclass(public[name])):
        if cls.__module__.startswith("rheobase") and cls.__name__ not in RECORDS and numbers(cls):
            yield cls


CASES = [(cls, name, types) for cls in constructors() for name, types in numbers(cls).items()]


def bad_values(types: set[str]) -> list[Any]:
    bad: list[Any] = [math.nan, "2x", [1.0], 1j, True, {}]
    if "Limit" not in types:
        bad += [math.inf, -math.inf]
    if types & {"int", "Size"}:
        bad.append(1.5)
    if types & {"Positive", "Size"}:
        bad += [0, -1]
    if "Share" in types:
        bad += [-0.1, 1.1]
    return bad + ([] if "None" in types else [None])


@pytest.mark.parametrize(
    ("cls", "name", "types"), CASES, ids=[f"{cls.__name__}-{name}" for cls, name, _ in CASES]
)
def test_a_bad_number_is_refused_by_its_name(cls: type, name: str, types: set[str]) -> None:
    good = NEEDED.get(cls.__name__, {})
    if not inspect.isabstract(cls):
        cls(**good)
    for bad in bad_values(types):
        with pytest.raises((TypeError, ValueError)) as refused:
            cls(**good | {name: bad})
        assert says(str(refused.value), name, bad), (bad, str(refused.value))


def says(message: str, name: str, bad: object) -> bool:
    """Whether a message names the argument and shows what was given."""
    return name in message and (repr(bad) in message or str(bad) in message)


def test_learnt_numbers_may_be_given_as_whole_ones() -> None:
    modules = (
        neurons.DSRIF(6), neurons.DietLIF(1, 2), neurons.KLIF(k=1), layers.QCFS(8, 8),
        layers.QuantReLU(4, 8), layers.Quantise(4, scale=1),
    )  # fmt: skip
    assert {p.dtype for m in modules for p in m.parameters()} == {torch.float32}


@pytest.mark.parametrize("given", ["2", True, [1.0], 1j, None])
@pytest.mark.parametrize("row", surrogate.surrogates(), ids=lambda row: row.name)
def test_parameters_of_surrogates_are_numbers(row: Any, given: object) -> None:
    for name in row.parameters:
        with pytest.raises(TypeError, match=name):
            row.cls(**{name: given})


@pytest.mark.parametrize("neuron", [neurons.IF, neurons.LIF, neurons.ILIF, neurons.TandemIF])
def test_a_soft_reset_takes_a_threshold_above_0(neuron: type) -> None:
    options = {} if neuron in (neurons.ILIF, neurons.TandemIF) else {"v_reset": None}
    for threshold in (0.0, -1.0):
        with pytest.raises(ValueError, match="v_threshold"):
            neuron(v_threshold=threshold, **options)


SEQUENCE = {
    "BGN": {}, "BNTT": {"steps": 4}, "MPBN": {}, "NeuNorm": {"shape": (8, 4, 4)}, "STSC": {},
    "TAB": {"steps": 4}, "TCJA": {"steps": 4, "channels": 8}, "TEBN": {"steps": 4},
    "TemporalAttention": {"steps": 4, "reduction": 2},
    "MultiDimensionalAttention": {"kind": "CSA", "channels": 8, "c_ratio": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCE)
def test_layers_over_time_refuse_empty_and_whole_numbers(name: str) -> None:
    layer = getattr(layers, name)(**NEEDED[name] | SEQUENCE[name])
    assert layer(torch.rand(4, 2, 8, 4, 4)).shape == (4, 2, 8, 4, 4)
    for shape in ((0, 2, 8, 4, 4), (4, 0, 8, 4, 4)):
        with pytest.raises(ValueError, match=rf"{name} got an empty input"):
            layer(torch.rand(shape))
    with pytest.raises(TypeError, match=rf"{name} takes floating point"):
        layer(torch.ones(4, 2, 8, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)])
def test_losses_refuse_logits_of_nothing(shape: tuple[int, ...]) -> None:
    labels = torch.zeros(shape[1], dtype=torch.int64)
    every = (losses.TET(), losses.STCA(), losses.cross_entropy_of_mean)
    for loss in (*every, losses.squared_error_of_rates):
        with pytest.raises(ValueError, match="no step, sample or class"):
            loss(torch.zeros(shape), labels)


def test_classes_of_users_are_held_to_their_annotations_too() -> None:
    class Mine(NumbersChecked):
        def __init__(self, a: float, /, b: int = 2, *, c: Size | None = None) -> None:
            self.all = a, b, c

    @numbers_checked
    @dataclasses.dataclass
    class Record:
        tau: float = 1.0

    assert Mine(1, b=3).all == (1, 3, None)
    assert Record(torch.tensor(2.0).item()).tau == 2.0
    for make, words in (
        (lambda: Mine(1.0, 2.5), "Mine takes a whole number as b, got 2.5"),
        (lambda: Mine(1.0, c=0), "Mine takes a whole number of at least 1 or None as c, got 0"),
        (lambda: Record(math.inf), "Record takes a finite number as tau, got inf"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(TypeError, match="as tau, got '1'"):
        Record("1")  # type: ignore[arg-type]
