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
from rheobase.neurons import IF, LIF, PLIF, Neuron
from rheobase.ops.scan import use_backend

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
KINDS = ("neuron_", "official_")
FILES = sorted(f for f in FOLDER.glob("*.npz") if f.name.startswith(KINDS) and "BN" not in f.name)

Arrays = dict[str, Tensor]
Facts = dict[str, Any]


def _load(path: Path) -> tuple[Facts, Arrays]:
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        return facts, {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def _surrogate(text: str) -> zoo.Surrogate:
    """``ATan(2)`` or ``Sigmoid(4.0)`` as the files write it."""
    name, _, argument = text.partition("(")
    return zoo.surrogate_class(name)(float(argument.rstrip(")")))


def _options(facts: Facts) -> dict[str, Any]:
    options: dict[str, Any] = {"surrogate": _surrogate(facts.get("surrogate", "ATan(2)"))}
    for name in ("v_threshold", "v_reset", "detach_reset", "decay_input"):
        if name in facts:
            options[name] = facts[name]
    return options


def _tau(facts: Facts) -> float:
    return float(facts.get("tau", facts.get("init_tau", 2.0)))


SPIKINGJELLY: dict[str, Callable[[Facts], Neuron]] = {
    "IFNode": lambda f: IF(**_options(f)),
    "LIFNode": lambda f: LIF(_tau(f), **_options(f)),
    "ParametricLIFNode": lambda f: PLIF(_tau(f), **_options(f)),
}

# The authors' own neurons are LIFs with a decay factor, strict firing and their own gradients.
OFFICIAL: dict[str, Callable[[Facts], Neuron]] = {
    "official_MSResNet_mem_update": lambda f: LIF(
        1.0 / (1.0 - f["decay"]), decay_input=False, strict=True, v_threshold=f["thresh"],
        detach_reset=True, surrogate=zoo.Rectangular(0.5 / f["lens"]),
    ),
    "official_STBPsimple_LIFSpike": lambda f: LIF(
        1.0 / (1.0 - f["TAU"]), decay_input=False, strict=True, v_threshold=f["VTH"],
        surrogate=zoo.Rectangular(0.5 / f["ALPHA"]),
    ),
}  # fmt: skip


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    double = expected.dtype == torch.float64
    bound = (1e-12 if double else 2e-6) * float(expected.abs().max().clamp_min(1.0))
    worst = float((actual.detach() - expected).abs().max())
    assert worst <= bound, f"{what}: {worst:g} is above {bound:g}"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_neuron(path: Path, backend: str) -> None:
    facts, arrays = _load(path)
    make = OFFICIAL.get(path.stem) or SPIKINGJELLY.get(facts.get("neuron", ""))
    if make is None:
        pytest.skip(f"not yet built: {facts.get('neuron', path.stem)}")
    neuron = make(facts).to(arrays["x"].dtype)
    for name, parameter in neuron.named_parameters():
        parameter.data.copy_(arrays[f"param_{name}"])
    x = arrays["x"].clone().requires_grad_()
    with use_backend(backend):
        spikes, v = neuron(x, tap="v")
        loss = (spikes * arrays["w_s" if "w_s" in arrays else "w"]).sum()
        if "w_v" in arrays:
            loss = loss + (v * arrays["w_v"]).sum()
        loss.backward()
    expected = arrays["spikes" if "spikes" in arrays else "y"]
    assert torch.equal(spikes.detach(), expected)
    if "v_seq_after_reset" in arrays:
        _close(v, arrays["v_seq_after_reset"], "membrane")
    assert x.grad is not None
    _close(x.grad, arrays["grad_x"], "gradient of the input")
    for name, parameter in neuron.named_parameters():
        assert parameter.grad is not None
        _close(parameter.grad, arrays[f"grad_{name}"], f"gradient of {name}")
