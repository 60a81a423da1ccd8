"""Norms held to SpikingJelly and to the papers' own code.

Takes every ``norm_*`` file and the norms among the ``official_*`` files of
``$RHEOBASE_GOLDENS/direct`` (default: ``tests/goldens/direct``), with the ``.json`` beside it, and
chooses the norm by the class the file names. A kind that is not built yet is skipped by name.
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
from torch import Tensor, nn

from rheobase import surrogate as zoo
from rheobase.layers import BNTT, MPBN, TAB, TEBN, NeuNorm, ThresholdDependentBatchNorm2d, over_time
from rheobase.layers.norms.base import Foldable

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = sorted(
    path
    for path in FOLDER.glob("*.npz")
    if path.name.startswith("norm_")
    or (path.name.startswith("official_") and any(part in path.name for part in ("BN", "Norm")))
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
    return zoo.surrogate_class(name)(float(argument.rstrip(")")))


def _neunorm(facts: Facts, arrays: Arrays) -> nn.Module:
    c, h, w = arrays["x"].shape[2:]
    return NeuNorm((c, h, w), facts["k"], shared=arrays["init__w"].shape[0] != c)


def _mpbn_of_spikingjelly(facts: Facts, arrays: Arrays) -> nn.Module:
    names = ("tau", "decay_input", "v_threshold", "v_reset", "detach_reset")
    options = {name: facts[name] for name in names if name in facts}
    return MPBN(
        arrays["x"].shape[2],
        membrane="normalised",
        learn_threshold=facts.get("learnable_vth", False),
        surrogate=_surrogate(facts["surrogate"]),
        **options,
    )


def _mpbn_of_the_paper(facts: Facts, arrays: Arrays) -> nn.Module:
    return MPBN(
        arrays["x"].shape[2],
        1.0 / (1.0 - facts["decay"]),
        decay_input=False,
        v_threshold=0.5,
        strict=True,
        surrogate=zoo.Dspike(facts["temp"]),
    )


def _rules(facts: Facts) -> dict[str, float]:
    """What the file states of these two; SpikingJelly's default eps is 1e-5 for every norm."""
    return {"eps": facts.get("eps", 1e-5), "momentum": facts.get("momentum", 0.1)}


def _batch_norm(facts: Facts, arrays: Arrays) -> nn.Module:
    shape = arrays["x"].shape
    return (nn.BatchNorm1d if len(shape) < 5 else nn.BatchNorm2d)(shape[2], **_rules(facts))


def _bntt(facts: Facts, arrays: Arrays) -> nn.Module:
    return BNTT(arrays["x"].shape[2], arrays["x"].shape[0], **_rules(facts))


def _tebn(facts: Facts, arrays: Arrays) -> nn.Module:
    return TEBN(arrays["x"].shape[2], arrays["x"].shape[0], **_rules(facts))


# By the class a file names, or else by the file's own name.
NORMS: dict[str, Callable[[Facts, Arrays], nn.Module]] = {
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "official_TET_tdBatchNorm": _batch_norm,
    "ThresholdDependentBatchNorm2d": lambda f, a: ThresholdDependentBatchNorm2d(
        a["x"].shape[2], f["v_th"], f["alpha"], reading="initial", **_rules(f)
    ),
    "official_STBPsimple_tdBN": lambda f, a: ThresholdDependentBatchNorm2d(
        a["x"].shape[2], f["VTH"], f["alpha"], **_rules(f)
    ),
    "BatchNormThroughTime1d": _bntt,
    "BatchNormThroughTime2d": _bntt,
    "TemporalEffectiveBatchNorm1d": _tebn,
    "TemporalEffectiveBatchNorm2d": _tebn,
    "TAB_Layer": lambda f, a: TAB(a["x"].shape[2], a["x"].shape[0]),
    "NeuNorm": _neunorm,
    "MPBNLIFNode": _mpbn_of_spikingjelly,
    "official_MPBN_LIFAct": _mpbn_of_the_paper,
}


def _ours(official: str, norm: nn.Module) -> str:
    """Our name of a parameter or buffer."""
    if isinstance(norm, BNTT | TAB):
        return official.replace("bn_list.", "bn.")
    if isinstance(norm, TEBN):
        return "p" if official == "scale" else f"bn.{official}"
    return {"a": "log_threshold"}.get(official, official.replace("vbn.", "bn."))


def _named(arrays: Arrays, norm: nn.Module, *prefixes: str) -> dict[str, Tensor]:
    """The arrays whose names start with one of ``prefixes``, by our names."""
    return {
        _ours(name.removeprefix(prefix), norm): value
        for prefix in prefixes
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    double = expected.dtype == torch.float64
    bound = (1e-12 if double else 2e-6) * float(expected.abs().max().clamp_min(1.0))
    worst = float((actual.detach().to(expected.dtype).view_as(expected) - expected).abs().max())
    assert worst <= bound, f"{what}: {worst:g} is above {bound:g}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_norm(path: Path) -> None:
    facts, arrays = _load(path)
    make = NORMS.get(facts.get("class", path.stem))
    if make is None:
        pytest.skip(f"not yet built: {facts.get('class', path.stem)}")
    norm = make(facts, arrays).to(arrays["x"].dtype)
    start = _named(arrays, norm, "init__", "param__")
    state = norm.state_dict()
    assert set(start) <= set(state), "a name of the file that the norm does not have"
    norm.load_state_dict({n: v.reshape(state[n].shape) for n, v in (state | start).items()})

    x = arrays["x"].clone().requires_grad_()
    y = over_time(x, norm)
    (y * arrays["w"]).sum().backward()
    _close(y, arrays["y_train" if "y_train" in arrays else "y"], "output in training")
    assert x.grad is not None
    _close(x.grad, arrays["grad_x"], "gradient of the input")
    gradients = _named(arrays, norm, "grad__")
    for name, parameter in norm.named_parameters():
        assert parameter.grad is not None
        _close(parameter.grad, gradients[name], f"gradient of {name}")
    for name, value in _named(arrays, norm, "after__", "buffer_after__").items():
        _close(norm.state_dict()[name], value, f"{name} after the step")

    if "y_eval" not in arrays:
        return
    _close(over_time(arrays["x_eval"], norm.eval()), arrays["y_eval"], "output in eval")
    if isinstance(norm, Foldable | MPBN):
        norm.fold()
        _close(over_time(arrays["x_eval"], norm), arrays["y_eval"], "output folded")
