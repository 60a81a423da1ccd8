"""Surrogate derivatives and primitives held to the official implementations.

Takes every ``surrogates_*.npz`` of ``$RHEOBASE_GOLDENS/direct`` (default: ``tests/goldens``), with
the ``.json`` beside it: its ``specs`` name each curve's class and parameters. A curve that we do
not build is skipped with its name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheobase import surrogate as zoo
from rheobase.surrogate import Surrogate

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"

RENAMED = {"Rect": "Rectangular", "DeterministicPass": "StraightThrough"}

# Curves named by library and function, with the parameters in the name ("dspike_b3.0_c0").
PEERS: dict[str, Callable[[dict[str, float]], Surrogate]] = {
    "snntorch_fast_sigmoid": lambda p: zoo.FastSigmoid(p.get("slope", 25.0)),
    "snntorch_atan": lambda p: zoo.ATan(p.get("alpha", 2.0)),
    "snntorch_sigmoid": lambda p: zoo.Sigmoid(p.get("slope", 25.0)),
    "snntorch_straight_through_estimator": lambda p: zoo.StraightThrough(),
    # Norse 1.1.0 takes a (alpha) and does not use it: what it computes is alpha = 1.
    "norse_super": lambda p: zoo.FastSigmoid(1.0),
    "norse_triangle": lambda p: zoo.Triangular(1.0),
    "sinabs_SingleExponential": lambda p: zoo.SingleExponential(
        p.get("grad_width", 0.5), p.get("grad_scale", 1.0)
    ),
    "sinabs_MultiGaussian": lambda p: zoo.MultiGaussian(
        p.get("sigma", 0.5), p.get("h", 0.15), p.get("s", 6.0)
    ),
    "sinabs_PeriodicExponential": lambda p: zoo.PeriodicExponential(p.get("grad_width", 0.5)),
    "sinabs_Heaviside": lambda p: zoo.Heaviside(p.get("window", 1.0)),
    "sinabs_Gaussian": lambda p: zoo.Gaussian(p.get("sigma", 0.5)),
    "dspike": lambda p: zoo.Dspike(p["b"]),
    "localzo_expected": lambda p: zoo.Gaussian(p["delta"]),
    "imloss_esg": lambda p: zoo.EvolvingTanh(p["K"]),
}

NOT_BUILT = {
    "snntorch_triangular": "changes sign at 0 and has no mass: a slip, not copied",
    "norse_heavi_erfc": "leaves out a factor (mass 2); Erf is the function it documents",
    "PoissonPass": "a stochastic spike, not a surrogate",
}

# SpikingJelly computes the primitive with log(z + 1 + 1e-5); the derivative without that guard.
PRIMITIVE_OFF_BY = {"S2NN": 1.1e-5}


def curves() -> list[Any]:
    found = [
        pytest.param(path, key, id=f"{path.stem}-{key}-{spec.get('class', '')}".rstrip("-"))
        for path in sorted(FOLDER.glob("surrogates_*.npz"))
        for key, spec in json.loads(path.with_suffix(".json").read_text())["specs"].items()
    ]
    return found or [pytest.param(None, "", marks=pytest.mark.skip(f"no surrogates in {FOLDER}"))]


def parse(key: str) -> tuple[str, dict[str, float]]:
    """``dspike_b3.0_c0`` is the curve ``dspike`` with parameters b = 3 and c = 0."""
    parameters = {}
    while match := re.fullmatch(r"(.+)_([A-Za-z]+)(-?\d+(?:\.\d+)?)", key):
        key, parameters[match[2]] = match[1], float(match[3])
    return key, parameters


def build(key: str, spec: dict[str, Any]) -> tuple[Surrogate, float]:
    """Our surrogate for a curve, and the z at which its centre lies."""
    given = spec.get("kwargs", {})
    name, in_key = (spec["class"], {}) if "class" in spec else parse(key)
    parameters = {**in_key, **given}
    if name in PEERS:
        return PEERS[name](parameters), parameters.get("c", 0.0)
    cls = getattr(zoo, RENAMED.get(name, name), None)
    if cls is None or name in NOT_BUILT:
        pytest.skip(f"{name} is not built: {NOT_BUILT.get(name, 'unknown class')}")
    return cls(**given), 0.0


def assert_same(
    ours: Callable[[Tensor], Tensor], x: Tensor, golden: Tensor, off_by: float = 0.0
) -> None:
    """Equal within rounding; at a jump of ours, the value of either side will do."""
    tolerance, step = (1e-12, 1e-12) if x.dtype == torch.float64 else (2e-6, 1e-6)
    x, golden = x[~golden.isnan()], golden[~golden.isnan()]  # sj14's LogTailedReLU below 0
    scale = golden.abs().max()
    low, high = ours(x - step), ours(x + step)
    jump = (low - high).abs() > 1e-3 * scale
    error = (ours(x) - golden).abs()
    either_side = torch.minimum((low - golden).abs(), (high - golden).abs())
    error = torch.where(jump, torch.minimum(error, either_side), error)
    assert float((error - tolerance * (golden.abs() + scale)).max()) <= off_by


@pytest.mark.parametrize(("path", "key"), curves())
def test_curve_is_the_official_one(path: Path, key: str) -> None:
    document = json.loads(path.with_suffix(".json").read_text())
    spec = document["specs"][key]
    arrays = np.load(path)
    surrogate, centre = build(key, spec)
    x = torch.from_numpy(arrays["x"])
    primitive = arrays.get(f"prim_{key}")
    if primitive is not None and surrogate.primitive is not None:
        values = surrogate.parameters_by_name().values()
        off_by = PRIMITIVE_OFF_BY.get(type(surrogate).__name__, 0.0)
        ours, official = type(surrogate).primitive, torch.from_numpy(primitive)
        assert_same(lambda z: ours(z, *values), x, official, off_by)
    if isinstance(surrogate, zoo.PiecewiseLeakyReLU) and "0.0.0.0.14" in document.get("source", ""):
        surrogate.gain = 2.0  # only that version's derivative is doubled, not its primitive
    golden = arrays[f"deriv_{key}"] if "class" in spec else arrays[key]
    assert_same(lambda z: surrogate(z - centre), x, torch.from_numpy(golden))
