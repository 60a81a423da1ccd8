"""Attention over time, channels and space held to the papers' own code.

Takes every ``attn_*`` file of ``$RHEOBASE_GOLDENS/direct`` (default: ``tests/goldens/direct``),
with the ``.json`` beside it, and chooses the module by the parameters the file holds. A kind that
is not built yet is skipped by name.
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

from rheobase.layers import STSC, TCJA, MultiDimensionalAttention, TemporalAttention

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = sorted(FOLDER.glob("attn_*.npz"))

Arrays = dict[str, Tensor]

# The official names of parameters, and ours.
NAMES = {
    "temporal_excitation.0": "squeeze",
    "temporal_excitation.2": "excite",
    "ta.sharedMLP.0": "time.squeeze",
    "ta.sharedMLP.2": "time.excite",
    "ca.sharedMLP.0": "channel.squeeze",
    "ca.sharedMLP.2": "channel.excite",
    "sa.conv": "space",
    "conv": "along_channels",
    "conv_c": "along_time",
    "temporal_conv.conv": "filter",
    "spatio_temporal_attention.recv_T": "receive",
    "spatio_temporal_attention.recv_C.1": "inhibit",
}


def _load(path: Path) -> tuple[dict[str, Any], Arrays]:
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        return facts, {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def _parameters(arrays: Arrays) -> dict[str, str]:
    """Official name -> ours, for every parameter of the file."""
    official = [name.removeprefix("param__") for name in arrays if name.startswith("param__")]
    pairs = (name.rpartition(".")[::2] for name in official)
    return {f"{layer}.{kind}": f"{NAMES.get(layer, layer)}.{kind}" for layer, kind in pairs}


def _temporal(weights: Arrays) -> nn.Module:
    hidden, steps = weights["squeeze.weight"].shape
    return TemporalAttention(steps, steps // hidden)


def _multi(weights: Arrays) -> nn.Module:
    options: dict[str, int] = {}
    for part, size, ratio in (("time", "steps", "t_ratio"), ("channel", "channels", "c_ratio")):
        if f"{part}.squeeze.weight" in weights:
            hidden, options[size] = weights[f"{part}.squeeze.weight"].shape[:2]
            options[ratio] = options[size] // hidden
    if "space.weight" in weights:
        options["kernel_size"] = weights["space.weight"].shape[-1]
    letters = [("time", "T"), ("channel", "C"), ("space", "S")]
    kind = "".join(x for part, x in letters if any(name.startswith(part) for name in weights))
    return MultiDimensionalAttention(f"{kind}A", **options)  # type: ignore[arg-type]


def _tcja(weights: Arrays) -> nn.Module:
    along_channels, along_time = weights["along_channels.weight"], weights["along_time.weight"]
    sizes = along_channels.shape[-1], along_time.shape[-1]
    return TCJA(along_channels.shape[0], along_time.shape[0], *sizes)


def _stsc(weights: Arrays) -> nn.Module:
    receive = weights["receive.weight"]
    channels = receive.shape[1]
    return STSC(
        channels, weights["filter.weight"].shape[2], receive.shape[2], channels // receive.shape[0]
    )


MODULES: dict[str, Callable[[Arrays], nn.Module]] = {
    "along_channels.weight": _tcja,
    "squeeze.bias": _temporal,
    "time.squeeze.weight": _multi,
    "channel.squeeze.weight": _multi,
    "space.weight": _multi,
    "filter.weight": _stsc,
}


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    bound = (1e-12 if expected.dtype == torch.float64 else 2e-6) * float(
        expected.abs().max().clamp_min(1.0)
    )
    worst = float((actual.detach().reshape(expected.shape) - expected).abs().max())
    assert worst <= bound, f"{what}: {worst:g} is above {bound:g}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_attention(path: Path) -> None:
    facts, arrays = _load(path)
    ours = _parameters(arrays)
    weights = {name: arrays[f"param__{official}"] for official, name in ours.items()}
    make = next((MODULES[name] for name in MODULES if name in weights), None)
    if make is None:
        pytest.skip(f"not yet built: {facts.get('class', path.stem)}")
    module = make(weights).to(arrays["x"].dtype)
    state = {n: v.view(module.get_parameter(n).shape) for n, v in weights.items()}
    module.load_state_dict(state)
    x = arrays["x"].clone().requires_grad_()
    time_second = facts.get("layout", "[T,N").startswith("[N,T")
    y = module(x.transpose(0, 1)).transpose(0, 1) if time_second else module(x)
    (y * arrays["w"]).sum().backward()
    _close(y, arrays["y"], "output")
    assert x.grad is not None
    _close(x.grad, arrays["grad_x"], "gradient of the input")
    for official, name in ours.items():
        gradient = module.get_parameter(name).grad
        assert gradient is not None
        _close(gradient, arrays[f"grad__{official}"], f"gradient of {official}")
