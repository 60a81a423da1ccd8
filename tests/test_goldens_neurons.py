"""Neurons held to SpikingJelly and to the papers' own code.

Takes every ``neuron_*`` and ``official_*`` file of ``$RHEOBASE_GOLDENS/direct`` (default:
``tests/goldens/direct``) but the norms (test_goldens_norms.py), with the ``.json`` beside it, and
chooses the check by what the file names. A kind that is not built yet is skipped by name. Each
backend is held to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheobase import surrogate as zoo
from rheobase.neurons import (
    CLIF,
    CUBALIF,
    DSRIF,
    DSRLIF,
    EIF,
    GLIF,
    IF,
    ILIF,
    KLIF,
    LIF,
    LTMD,
    PLIF,
    PSN,
    QIF,
    RAF,
    AdaptiveQIF,
    DetachedLIF,
    DietLIF,
    MaskedPSN,
    Neuron,
    RateIF,
    SlidingPSN,
    TernaryIF,
    TernaryLIF,
)
from rheobase.ops.scan import use_backend

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
KINDS = ("neuron_", "official_")
FILES = sorted(
    f
    for f in FOLDER.glob("*.npz")
    if f.name.startswith(KINDS) and not any(part in f.name for part in ("BN", "Norm"))
)

Arrays = dict[str, Tensor]
Facts = dict[str, Any]


def _load(path: Path) -> tuple[Facts, Arrays]:
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        return facts, {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def _surrogate(text: str) -> zoo.Surrogate:
    """``ATan(2)`` or ``Sigmoid(4.0)`` as the files write it."""
    name, _, argument = text.partition("(")
    name = {"Rect": "Rectangular"}.get(name, name)
    return zoo.surrogate_class(name)(float(argument.rstrip(")")))


def _options(facts: Facts) -> dict[str, Any]:
    options: dict[str, Any] = {"surrogate": _surrogate(facts.get("surrogate", "ATan(2)"))}
    for name in ("v_threshold", "v_reset", "detach_reset", "decay_input"):
        if name in facts:
            options[name] = facts[name]
    return options


def _tau(facts: Facts) -> float:
    return float(facts.get("tau", facts.get("init_tau", 2.0)))


def _rules(facts: Facts, *names: str) -> dict[str, Any]:
    """Those of the neuron's own arguments that the file states."""
    return {name: facts[name] for name in names if name in facts}


def _klif(facts: Facts) -> KLIF:
    return KLIF(_tau(facts), scale_reset=facts["scale_reset"], **_options(facts))


def _integer(facts: Facts) -> ILIF:
    # SpikingJelly keeps the gradient through the reset, the paper's code does not.
    rules = {"v_threshold": facts["v_threshold"], "detach_reset": facts.get("detach_reset", False)}
    return ILIF(facts["max_count"], tau=facts["tau"], **rules)


def _without(facts: Facts, name: str) -> dict[str, Any]:
    return {key: value for key, value in _options(facts).items() if key != name}


def _glif(facts: Facts) -> GLIF:
    surrogate = _surrogate(facts["surrogate"])
    return GLIF(facts["T"], facts["inplane"], strict=False, surrogate=surrogate)


def _cuba(facts: Facts) -> CUBALIF:
    tau = 1.0 / (1.0 - facts["v_decay"])
    return CUBALIF(tau, current_decay=facts["c_decay"], **_options(facts))


def _half_threshold(facts: Facts) -> RateIF:
    threshold = torch.tensor(facts["v_threshold"], dtype=torch.float64)
    neuron = RateIF(threshold, start=threshold / 2).requires_grad_(False)
    neuron.surrogate, neuron.detach_reset = _surrogate(facts["surrogate"]), facts["detach_reset"]
    return neuron


QUADRATIC = ("tau", "v_c", "a0", "v_rest")
ADAPTATION = ("tau_w", "a", "b", "w_rest")

SPIKINGJELLY: dict[str, Callable[[Facts], Neuron]] = {
    "IFNode": lambda f: IF(**_options(f)),
    "LIFNode": lambda f: LIF(_tau(f), **_options(f)),
    "ParametricLIFNode": lambda f: PLIF(_tau(f), **_options(f)),
    "KLIFNode": _klif,
    "HalfThresholdIFNode": _half_threshold,
    "SimpleIFNode": lambda f: IF(**_options(f)),
    "SimpleLIFNode": lambda f: LIF(_tau(f), **_options(f)),
    "SLTTLIFNode": lambda f: DetachedLIF(_tau(f), **_options(f)),
    "ComplementaryLIFNode": lambda f: CLIF(
        f["tau"], v_threshold=f["v_threshold"], surrogate=_surrogate(f["surrogate"])
    ),
    "CUBALIFNode": _cuba,
    "ILIFNode": _integer,
    "GatedLIFNode": _glif,
    "TernaryIFNode": lambda f: TernaryIF(**_options(f)),
    "TernaryLIFNode": lambda f: TernaryLIF(_tau(f), **_options(f)),
    "RAFNode": lambda f: RAF(**_rules(f, "b", "omega", "dt"), **_options(f)),
    "QIFNode": lambda f: QIF(**_rules(f, *QUADRATIC), **_options(f)),
    "EIFNode": lambda f: EIF(**_rules(f, "tau", "delta_T", "theta_rh", "v_rest"), **_options(f)),
    "IzhikevichNode": lambda f: AdaptiveQIF(**_rules(f, *QUADRATIC, *ADAPTATION), **_options(f)),
    "PSN": lambda f: PSN(f["T"], surrogate=_surrogate(f["surrogate"])),
    "MaskedPSN": lambda f: MaskedPSN(
        f["T"], f["k"], masking=f["lambda_"], surrogate=_surrogate(f["surrogate"])
    ),
    "SlidingPSN": lambda f: SlidingPSN(f["k"], surrogate=_surrogate(f["surrogate"])),
    "DSRIFNode": lambda f: DSRIF(f["v_threshold"], alpha=f["alpha"]),
    "DSRLIFNode": lambda f: DSRLIF(**_rules(f, "v_threshold", "tau", "delta_t", "alpha")),
}


def _said(facts: Facts, default: float, *names: str) -> float:
    """A number under the first of the names that the file has, or else the released code's."""
    return float(next((facts[name] for name in names if name in facts), default))


# The authors' own neurons: mostly LIFs with a decay factor, strict firing and their own gradients.
# By how the names of their files begin.
OFFICIAL: dict[str, Callable[[Facts], Neuron]] = {
    "official_MSResNet": lambda f: LIF(
        1.0 / (1.0 - f["decay"]), decay_input=False, strict=True, v_threshold=f["thresh"],
        detach_reset=True, surrogate=zoo.Rectangular(0.5 / f["lens"]),
    ),
    "official_STBPsimple": lambda f: LIF(
        1.0 / (1.0 - f["TAU"]), decay_input=False, strict=True, v_threshold=f["VTH"],
        surrogate=zoo.Rectangular(0.5 / f["ALPHA"]),
    ),
    "official_TET": lambda f: LIF(
        1.0 / (1.0 - _said(f, 0.5, "tau", "decay")), decay_input=False, strict=True,
        v_threshold=_said(f, 1.0, "thresh", "vth"),
        surrogate=zoo.PiecewiseQuadratic(1.0 / _said(f, 1.0, "gama", "gamma")),
    ),
    "official_LTMD": lambda f: LTMD(
        tau=1.0 / (1.0 - _said(f, 0.25, "tau", "TAU", "decay")),
        surrogate=zoo.Rectangular(0.5 / _said(f, 0.5, "aa", "lens")),
    ),
    "official_DietSNN": lambda f: DietLIF(
        f["leak"], f["threshold"], surrogate=zoo.LinearDecay(f["gamma"])
    ),
    "official_GLIF_CW": lambda f: GLIF(f["t"], f["arrays"]["param__alpha"][0][0]),
    "official_CLIF": lambda f: CLIF(
        f["tau"], v_threshold=f["vth"], memory="squashed",
        surrogate=zoo.Rectangular(1.0 / f["vth"]),
    ),
}  # fmt: skip

# Our parameters and theirs, where the names differ.
THEIRS = {
    "DietLIF": {"v_threshold": "threshold"},
    "GLIF": {
        "theta": ("Vth", "v_threshold"), "leak": ("leak", "linear_decay"),
        "subtracted": ("reVth", "v_subreset"), "conductance": "conduct",
    },
}  # fmt: skip

# What double precision cannot be held to: SpikingJelly puts these spikes out in single precision.
LOOSE = {"DSRIFNode": 1e-6, "DSRLIFNode": 1e-6}


def _stored(arrays: Arrays, kind: str, owner: str, name: str) -> Tensor:
    """The file's parameter (``kind`` "param") or gradient ("grad") that is our ``name``."""
    theirs = THEIRS.get(owner, {}).get(name, name)
    names = theirs if isinstance(theirs, tuple) else (theirs,)
    keys = [f"{kind}{joint}{n}" for n in names for joint in ("_", "__")]
    return next(arrays[key] for key in keys if key in arrays)


def _close(actual: Tensor, expected: Tensor, what: str, loose: float = 0.0) -> None:
    double = expected.dtype == torch.float64
    bound = (loose or (1e-12 if double else 2e-6)) * float(expected.abs().max().clamp_min(1.0))
    worst = float((actual.detach() - expected).abs().max())
    assert worst <= bound, f"{what}: {worst:g} is above {bound:g}"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_neuron(path: Path, backend: str) -> None:
    facts, arrays = _load(path)
    official = [make for name, make in OFFICIAL.items() if path.stem.startswith(name)]
    make = official[0] if official else SPIKINGJELLY.get(facts.get("neuron", ""))
    if make is None:
        pytest.skip(f"not yet built: {facts.get('neuron', path.stem)}")
    neuron = make(facts).to(arrays["x"].dtype)
    owner = type(neuron).__name__
    learnt = {n: p for n, p in neuron.named_parameters() if p.requires_grad}
    for name, parameter in learnt.items():
        parameter.data.copy_(_stored(arrays, "param", owner, name))
    x = arrays["x"].clone().requires_grad_()
    loose = LOOSE.get(facts.get("neuron", ""), 0.0)
    with use_backend(backend):
        if "w_v" in arrays:
            spikes, v = neuron(x, tap="v")
        else:
            spikes, v = neuron(x), None
        loss = (spikes * arrays["w_s" if "w_s" in arrays else "w"]).sum()
        if v is not None:
            loss = loss + (v * arrays["w_v"]).sum()
        loss.backward()
    expected = arrays["spikes" if "spikes" in arrays else "y"]
    assert torch.equal(spikes.detach().to(expected.dtype), expected)
    if v is not None:
        _close(v, arrays["v_seq_after_reset"], "membrane")
    assert x.grad is not None
    _close(x.grad, arrays["grad_x"], "gradient of the input", loose)
    for name, parameter in learnt.items():
        assert parameter.grad is not None
        gradient = _stored(arrays, "grad", owner, name)
        _close(parameter.grad, gradient, f"gradient of {name}", loose)
