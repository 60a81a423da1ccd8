"""Small networks of membrane-shortcut blocks, held to SpikingJelly's: outputs, rates, gradients.

Takes every ``model_ms*`` file of ``$RHEOBASE_GOLDENS/direct`` (the other block-level networks are
those of ``test_goldens_models.py``).
"""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.measure import firing_rates
from rheobase.models import load_official
from rheobase.models.ms_resnet import FAMILY
from rheobase.neurons import LIF
from rheobase.surrogate import Rectangular

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"


def numbers(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def neuron(facts: dict[str, Any]) -> dict[str, Any]:
    """``LIF tau=4/3 (...), vth=.5, hard reset 0, decay_input False, detach_reset``."""
    text = facts["neuron"]
    return {
        "neuron": LIF,
        "neuron_kwargs": {
            "tau": float(Fraction(re.search(r"tau=([\d./]+)", text)[1])),
            "v_threshold": float(re.search(r"vth=([\d.]+)", text)[1]),
            "v_reset": 0.0 if "hard reset 0" in text else None,
            "decay_input": "decay_input False" not in text,
            "detach_reset": "detach_reset" in text,
            "surrogate": Rectangular(float(re.match(r"Rect\(([\d.]+)\)", facts["surrogate"])[1])),
        },
    }


@pytest.mark.parametrize("path", sorted(FOLDER.glob("model_ms*.npz")), ids=lambda path: path.stem)
def test_membrane_shortcut_blocks(path: Path) -> None:
    golden, facts = numbers(path), json.loads(path.with_suffix(".json").read_text())
    rename = FAMILY.official["ms_resnet"].rename
    weights = {k.removeprefix("sd__"): v for k, v in golden.items() if k.startswith("sd__")}
    net = load_official("ms_resnet", weights, {"T": facts["T"]}, **neuron(facts))
    assert sum(p.numel() for p in net.parameters()) == facts["params"]

    with torch.no_grad():
        y = net.eval()(golden["x"]).mean(0)
    torch.testing.assert_close(y, golden["y_eval"], rtol=1e-5, atol=1e-6)
    ours = firing_rates(net, golden["x"])
    theirs = {rename(name): rate for name, rate in facts["firing_rates_eval"].items()}
    assert ours == pytest.approx(theirs, abs=1e-7)

    x = golden["x"].requires_grad_()
    y = net.train()(x).mean(0)
    torch.testing.assert_close(y, golden["y_train"], rtol=1e-5, atol=1e-6)
    (y * golden["w"]).sum().backward()
    same_gradient(x, golden["grad_x"])
    parameters = dict(net.named_parameters())
    for key in weights:
        if f"grad__{key}" in golden:
            same_gradient(parameters.pop(rename(key)), golden[f"grad__{key}"])
    assert not parameters, "every parameter has its gradient in the golden"


def same_gradient(ours: Tensor | nn.Parameter, theirs: Tensor) -> None:
    assert ours.grad is not None
    assert float((ours.grad - theirs).abs().max() / theirs.abs().max()) < 2e-5
