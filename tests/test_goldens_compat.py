"""The import shim for SpikingJelly held to numbers of SpikingJelly 0.0.0.0.14.

Takes every ``neuron_sj14_*`` file and ``surrogates_sj14`` of ``$RHEOBASE_GOLDENS/direct`` (default:
``tests/goldens/direct``): the neuron or surrogate is made by the class and the arguments that the
file names, as code written for that version makes it.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rheobase.compat.spikingjelly import clock_driven_neuron, neuron, surrogate
from rheobase.ops.scan import use_backend

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
FILES = sorted(FOLDER.glob("neuron_sj14_*.npz"))


@pytest.fixture(autouse=True)
def reference():
    """What is tested is the API; every kernel is held to the reference elsewhere."""
    with use_backend("reference"):
        yield


def made_of(text):
    """``ATan(2)``, as the files write it."""
    name, _, alpha = text.partition("(")
    return getattr(surrogate, name)(float(alpha.rstrip(")")))


def arguments(cls, facts):
    known = {
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base).parameters
    }
    given = {name: facts[name] for name in known & facts.keys()}
    return given | {"surrogate_function": made_of(facts["surrogate"])}


def load(path):
    facts = json.loads(path.with_suffix(".json").read_text())
    with np.load(path) as file:
        return facts, {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def run(node, arrays, call):
    """Spikes, membranes, and gradients of the file's loss."""
    for name, parameter in node.named_parameters():
        parameter.data.copy_(arrays[f"param_{name}"])
    x = arrays["x"].clone().requires_grad_()
    spikes, v = call(node, x)
    loss = (spikes * arrays["w_s"]).sum()
    if "w_v" in arrays:
        loss = loss + (v * arrays["w_v"]).sum()
    loss.backward()
    return spikes, v, x.grad


def whole(node, x):
    node.step_mode, node.store_v_seq = "m", True
    spikes = node(x)
    return spikes, node.v_seq


def in_pieces(node, x):
    """Calls of 11 steps: the membrane, and the gradient through it, lasts from one to the next."""
    node.step_mode, node.store_v_seq = "m", True
    pieces = [(node(piece), node.v_seq) for piece in x.split(11)]
    spikes, membranes = zip(*pieces, strict=True)
    return torch.cat(spikes), torch.cat(membranes)


def by_steps(node, x):
    node.step_mode = "s"
    spikes, membranes = [], []
    for step in x:
        spikes.append(node(step))
        membranes.append(node.v)
    return torch.stack(spikes), torch.stack(membranes)


def close(ours, theirs):
    bound = (1e-12 if theirs.dtype == torch.float64 else 2e-6) * float(theirs.abs().max().clamp(1))
    assert float((ours.detach() - theirs).abs().max()) <= bound


@pytest.mark.parametrize("call", [whole, in_pieces, by_steps])
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_node_of_activation_based(path, call):
    facts, arrays = load(path)
    cls = getattr(neuron, facts["neuron"])
    node = cls(**arguments(cls, facts)).to(arrays["x"].dtype)
    spikes, v, gradient = run(node, arrays, call)
    assert torch.equal(spikes.detach().to(arrays["spikes"].dtype), arrays["spikes"])
    if "v_seq_after_reset" in arrays:
        close(v, arrays["v_seq_after_reset"])
    close(gradient, arrays["grad_x"])
    if "w_final" in arrays:
        close(node.w, arrays["w_final"])
    for name, parameter in node.named_parameters():
        close(parameter.grad, arrays[f"grad_{name}"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_multi_step_node_of_clock_driven(path):
    facts, arrays = load(path)
    cls = getattr(clock_driven_neuron, f"MultiStep{facts['neuron']}", None)
    if cls is None:
        pytest.skip(f"version 0.0.0.0.12 had no MultiStep{facts['neuron']}")
    node = cls(**arguments(cls, facts)).to(arrays["x"].dtype)
    spikes, _, gradient = run(node, arrays, lambda node, x: (node(x), node.v_seq))
    assert torch.equal(spikes.detach().to(arrays["spikes"].dtype), arrays["spikes"])
    close(gradient, arrays["grad_x"])


def curves():
    path = FOLDER / "surrogates_sj14.json"
    return list(json.loads(path.read_text())["specs"]) if path.exists() else []


@pytest.mark.parametrize("key", curves())
def test_surrogate_function(key):
    spec = json.loads((FOLDER / "surrogates_sj14.json").read_text())["specs"][key]
    with np.load(FOLDER / "surrogates_sj14.npz") as arrays:
        x, golden = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays[f"deriv_{key}"])
        primitive = arrays.get(f"prim_{key}")
    function = getattr(surrogate, spec["class"])(**spec["kwargs"])
    z = x.clone().requires_grad_()
    spikes = function(z)
    assert torch.equal(spikes.detach(), (x >= 0).to(x))
    spikes.sum().backward()
    smooth = (x.abs() > 1e-9) & ~golden.isnan()  # 0 may be a jump; sj14's LogTailedReLU has nan
    for jump in (1.0, 0.5, 2.0):
        smooth &= (x.abs() - jump).abs() > 1e-9
    torch.testing.assert_close(z.grad[smooth], golden[smooth], rtol=1e-9, atol=1e-12)
    if primitive is not None and spec["class"] not in ("S2NN", "SquarewaveFourierSeries"):
        function.set_spiking_mode(False)
        ours, theirs = function(x), torch.from_numpy(primitive)
        finite = theirs.isfinite() & (x.abs() > 1e-9)
        torch.testing.assert_close(ours[finite], theirs[finite], rtol=1e-9, atol=1e-9)
