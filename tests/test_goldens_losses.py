"""Losses of every time step held to the official code.

Takes every ``loss_*`` file of ``$RHEOBASE_GOLDENS/direct`` (default: ``tests/goldens/direct``): its
arrays name the loss and its numbers, ``loss_lamb0.05_means1.0`` and ``grad_lamb0.05_means1.0``. And
every ``online_BPTT*`` file: the gradients of cross-entropy at every step through two layers. A kind
that is not built yet is skipped by name.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.train import TET, cross_entropy_of_mean
from rheobase.train.losses import Loss
from test_goldens_online import neuron_of

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = sorted(FOLDER.glob("loss_*.npz"))
BPTT = sorted(FOLDER.glob("online_BPTT*.npz"))


def _load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def _cases() -> list[object]:
    return [
        pytest.param(path, name.removeprefix("loss_"), id=f"{path.stem}-{name}")
        for path in FILES
        for name in _load(path)
        if name.startswith("loss_")
    ]


def _loss(name: str) -> Loss:
    if name == "CE_of_mean":
        return cross_entropy_of_mean
    if match := re.fullmatch(r"lamb([\d.e-]+)_means([\d.e-]+)", name):
        return TET(float(match[1]), float(match[2]))
    pytest.skip(f"not yet built: {name}")


@pytest.mark.parametrize(("path", "name"), _cases())
def test_loss(path: Path, name: str) -> None:
    loss, arrays = _loss(name), _load(path)
    time_second = "outputs_NTC" in arrays
    outputs = arrays["outputs_NTC" if time_second else "outputs"].requires_grad_()
    value = loss(outputs.transpose(0, 1) if time_second else outputs, arrays["labels"])
    (gradient,) = torch.autograd.grad(value, outputs)
    double = outputs.dtype == torch.float64
    close = {"rtol": 1e-12, "atol": 1e-15} if double else {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(value, arrays[f"loss_{name}"], **close)
    torch.testing.assert_close(gradient, arrays[f"grad_{name}"], **close)


@pytest.mark.parametrize("path", BPTT, ids=lambda p: p.stem)
def test_cross_entropy_at_every_step_through_two_layers(path: Path) -> None:
    facts, arrays = json.loads(path.with_suffix(".json").read_text()), _load(path)
    first, second = (
        nn.Linear(w.shape[1], w.shape[0], dtype=w.dtype) for w in (arrays["w1"], arrays["w2"])
    )
    net = nn.Sequential(first, neuron_of(facts), second)
    state = {"0.weight": "w1", "0.bias": "b1", "2.weight": "w2", "2.bias": "b2"}
    net.load_state_dict({ours: arrays[theirs] for ours, theirs in state.items()})
    logits = net(arrays["x"])
    torch.testing.assert_close(logits, arrays["logits"], rtol=1e-12, atol=1e-12)
    TET(lamb=0.0)(logits, arrays["target"]).backward()
    for ours, theirs in state.items():
        expected = arrays[f"g{theirs}"]
        torch.testing.assert_close(
            net.get_parameter(ours).grad,
            expected,
            rtol=1e-10,
            atol=1e-13,
            msg=f"gradient of {ours}",
        )
