"""Online learning rules held to the official code.

Takes every ``online_*`` file of ``$RHEOBASE_GOLDENS/direct`` (default: ``tests/goldens/direct``):
two linear layers with a LIF between them, and the gradients of the cross-entropy of every step. The
name says the rule; one that is not built is skipped by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase import surrogate as zoo
from rheobase.learn import OTTT, SLTT, LearningRule, Lesson, TruncatedBPTT
from rheobase.neurons import LIF
from rheobase.train import TET

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = sorted(FOLDER.glob("online_*.npz"))

RULES: dict[str, Callable[[int], LearningRule]] = {
    "BPTT": lambda T: TruncatedBPTT(T),
    "SLTT": lambda T: SLTT(),
    "OTTT": lambda T: OTTT(),
}


def neuron_of(facts: dict[str, str]) -> LIF:
    """``LIF tau=2 decay_input=False vth=1 soft reset detach_reset`` as the files write it."""
    words = facts["neuron"]
    found = dict(re.findall(r"(\w+)=([\w.]+)", words))
    name, _, argument = facts["surrogate"].rstrip(")").partition("(")
    return LIF(
        float(found["tau"]),
        decay_input=found["decay_input"] == "True",
        v_threshold=float(found["vth"]),
        v_reset=None if "soft reset" in words else float(found.get("v_reset", 0.0)),
        detach_reset="detach_reset" in words,
        surrogate=zoo.surrogate_class(name)(*([float(argument)] if argument else [])),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_gradients(path: Path) -> None:
    kind = path.stem.split("_")[1]
    if kind not in RULES:
        pytest.skip(f"not yet built: {kind}")
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        arrays: dict[str, Tensor] = {n: torch.from_numpy(np.asarray(file[n])) for n in file.files}
    first, second = (
        nn.Linear(w.shape[1], w.shape[0], dtype=w.dtype) for w in (arrays["w1"], arrays["w2"])
    )
    net = nn.Sequential(first, neuron_of(facts), second)
    state = {"0.weight": "w1", "0.bias": "b1", "2.weight": "w2", "2.bias": "b2"}
    net.load_state_dict({ours: arrays[theirs] for ours, theirs in state.items()})
    x = arrays["x"]
    torch.testing.assert_close(net(x), arrays["logits"], rtol=1e-12, atol=1e-12)
    rule = RULES[kind](x.shape[0])
    rule.check(net)
    loss = rule(Lesson(net, x, arrays["target"], TET(lamb=0.0)))
    torch.testing.assert_close(loss.float(), arrays["loss"].float(), rtol=1e-6, atol=1e-7)
    for ours, theirs in state.items():
        torch.testing.assert_close(
            net.get_parameter(ours).grad,
            arrays[f"g{theirs}"],
            rtol=1e-10,
            atol=1e-13,
            msg=lambda found, name=ours: f"gradient of {name}: {found}",
        )
