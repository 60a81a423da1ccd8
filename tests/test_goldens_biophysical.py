"""Models in millivolts held to Brian2: every ``brian_*`` trace of ``$RHEOBASE_GOLDENS/direct``.

The number of spikes is exact, their times within two steps (the facts' tolerance; in fact they are
the same step), and membranes agree to rounding where the file has them and the equation is linear.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rheobase.neurons import (
    AdEx,
    Biophysical,
    HodgkinHuxley,
    Izhikevich,
    PhysicalEIF,
    PhysicalLIF,
    PhysicalQIF,
    RefractoryLIF,
)

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = [f for f in sorted(FOLDER.glob("brian_*.npz")) if "STDP" not in f.name]

Facts = dict[str, Any]
Cell = tuple[Biophysical, float]  # a neuron, and its constant input

METHODS = {"exact": "exponential_euler"}  # for the linear membrane, exponential Euler is exact


def _numerics(facts: Facts) -> dict[str, Any]:
    method = METHODS.get(facts["method"], facts["method"])
    return {
        "dt": facts["dt_ms"],
        "method": method,
        "refractory": float(facts.get("refractory_ms", 0.0)),
    }


def _membrane(facts: Facts, threshold: str) -> dict[str, Any]:
    return {
        "tau": float(facts["tau_ms"]),
        "v_rest": float(facts["Vrest"]),
        "v_threshold": float(facts[threshold]),
        "v_reset": float(facts["Vr"]),
        **_numerics(facts),
    }


def _lif(facts: Facts) -> list[Cell]:
    return [(PhysicalLIF(**_membrane(facts, "Vth")), x) for x in facts["RI_mV"]]


def _qif(facts: Facts) -> list[Cell]:
    own = {"k": facts["k_per_mV"], "v_c": facts["Vc"]}
    return [(PhysicalQIF(**own, **_membrane(facts, "Vcut")), x) for x in facts["RI_mV"]]


def _eif(facts: Facts) -> list[Cell]:
    own = {"v_T": facts["VT"], "delta_T": facts["DeltaT"]}
    return [(PhysicalEIF(**own, **_membrane(facts, "Vcut")), x) for x in facts["RI_mV"]]


def _izhikevich(facts: Facts) -> list[Cell]:
    sets = facts["params"].values()
    return [(Izhikevich(*map(float, p), **_numerics(facts)), facts["I"]) for p in sets]


def _adex(facts: Facts) -> list[Cell]:
    membrane = {
        "C": facts["C_pF"], "g_L": facts["gL_nS"], "E_L": facts["EL_mV"], "V_T": facts["VT_mV"],
        "delta_T": facts["DeltaT_mV"],
    }  # fmt: skip
    return [
        (
            AdEx(
                **membrane,
                tau_w=p["tauw_ms"],
                a=p["a_nS"],
                b=p["b_pA"],
                v_reset=p["Vr_mV"],
                **_numerics(facts),
            ),
            facts["I_nA"],
        )
        for p in facts["params"]
    ]


def _hodgkin_huxley(facts: Facts) -> list[Cell]:
    names = {"g_Na": "gNa", "g_K": "gK", "g_L": "gL", "E_Na": "ENa", "E_K": "EK", "E_L": "EL",
             "C": "Cm"}  # fmt: skip
    membrane = {ours: float(facts[theirs]) for ours, theirs in names.items()}
    return [(HodgkinHuxley(**membrane, **_numerics(facts)), x) for x in facts["I_uA_cm2"]]


MODELS: dict[str, Callable[[Facts], list[Cell]]] = {
    "LIF": _lif,
    "QIF": _qif,
    "EIF": _eif,
    "Izhikevich": _izhikevich,
    "AdEx": _adex,
    "HH": _hodgkin_huxley,
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_spike_times_are_those_of_brian(path: Path) -> None:
    facts = json.loads(path.with_suffix(".json").read_text())
    kind = path.stem.split("_")[1]
    if kind not in MODELS:
        pytest.skip(f"not yet built: {kind}")
    with np.load(path) as file:
        golden = {name: file[name] for name in file.files}
    times = golden["t_ms"]
    for i, (neuron, current) in enumerate(MODELS[kind](facts)):
        x = torch.full((len(times), 1), float(current), dtype=torch.float64)
        with torch.no_grad():
            spikes, v = neuron(x, tap="v")
        ours = times[spikes[:, 0].numpy() > 0.0]
        theirs = golden["spike_t_ms"][golden["spike_i"] == i]
        assert len(ours) == len(theirs), (i, len(ours), len(theirs))
        assert np.all(np.abs(ours - theirs) <= 2.0 * facts["dt_ms"])
        if kind == "LIF":
            # Brian2 records before each step, the tap after it.
            assert np.allclose(v[:-1, 0].numpy(), golden["v"][i, 1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.stem.startswith("brian_LIF_exact")], ids=lambda p: p.stem
)
def test_a_refractory_lif_in_steps_is_the_one_in_milliseconds(path: Path) -> None:
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        golden = {name: file[name] for name in file.files}
    if not facts.get("refractory_ms"):
        pytest.skip("no refractory period")
    volts = facts["Vth"] - facts["Vrest"]
    neuron = RefractoryLIF(
        1.0 / (1.0 - math.exp(-facts["dt_ms"] / facts["tau_ms"])),
        # Brian2 counts from the step of the spike on.
        refractory=round(float(facts.get("refractory_ms", 0.0)) / facts["dt_ms"]) - 1,
        v_reset=(facts["Vr"] - facts["Vrest"]) / volts,
        strict=True,
    )
    times = golden["t_ms"]
    for i, current in enumerate(facts["RI_mV"]):
        x = torch.full((len(times), 1), float(current) / volts, dtype=torch.float64)
        ours = times[neuron(x)[:, 0].detach().numpy() > 0.0]
        theirs = golden["spike_t_ms"][golden["spike_i"] == i]
        assert len(ours) == len(theirs)
        assert np.all(np.abs(ours - theirs) < 1e-9)
