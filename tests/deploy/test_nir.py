"""NIR files: those of other libraries give their spikes, ours come back as they were."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase import streaming
from rheobase.deploy import NIRGraph, NIRNetwork, load_nir, nir_graph, read_nir, save_nir
from rheobase.deploy.nir import NIRNeuron
from rheobase.layers import over_time
from rheobase.layers.sequential import TimeSequential
from rheobase.models import create_model
from rheobase.neurons import CLIF, IF, LIF, PLIF

_ROOT = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parents[1] / "goldens"))
FILES = sorted((_ROOT / "hardware").glob("*.nir"))
# How the library of a file's name runs what it wrote.
LIBRARIES = {
    "norse": {"tau_in_steps": True},
    "sinabs": {"dt": 1.0, "reset": "multi"},
    "snntorch": {"dt": 1e-4, "reset": "subtract_next"},
    "spikingjelly": {"strict": False},
}


def golden(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path.with_name(f"{path.stem}_io.npz")) as arrays:
        x, spikes = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["spikes"])
    if path.stem.startswith("sinabs"):  # one sample, without an axis for it
        x, spikes = x.unsqueeze(1), spikes.unsqueeze(1)
    return x.float(), spikes.float()


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_other_libraries_give_their_spikes(path: Path) -> None:
    pytest.importorskip("h5py")
    x, spikes = golden(path)
    library = next(name for name in LIBRARIES if path.stem.startswith(name))
    net = load_nir(path, **LIBRARIES[library])
    with torch.no_grad():
        assert torch.equal(net(x), spikes)
    assert spikes.sum() > 0


@pytest.mark.golden
def test_another_step_gives_the_recorded_number_of_other_spikes() -> None:
    pytest.importorskip("h5py")
    path = _ROOT / "hardware" / "spikingjelly_mlp.nir"
    recorded = json.loads((_ROOT / "hardware" / "nir_crosscheck.json").read_text())
    expected = recorded["spikingjelly_mlp@0.0001"]
    x, spikes = golden(path)
    found = load_nir(path, dt=1e-4)(x)
    assert found.sum() == expected["ours"] and (found != spikes).sum() == expected["mismatch"]


@pytest.mark.golden
def test_time_constants_that_norse_wrote_too_small_are_refused() -> None:
    pytest.importorskip("h5py")
    with pytest.raises(ValueError, match=r"1e-05 s is shorter than dt=0\.001 s.*tau_in_steps=True"):
        load_nir(_ROOT / "hardware" / "norse_mlp.nir")


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "reset", "tap"),
    [
        ("snntorch_subtract", "subtract_next", "h"),
        ("snntorch_zero", "hard", "h"),
        ("sj_soft", "subtract", "v"),
        ("sj_hard", "hard", "v"),
        ("sinabs_LIF", "multi", "v"),
        ("norse_LIFBox", "hard", "v"),
    ],
)
def test_four_ways_to_reset(name: str, reset: str, tap: str) -> None:
    """A constant input of 0.6 at a decay of 0.9; snnTorch tells the membrane before its reset."""
    told = json.loads((_ROOT / "hardware" / "reset_semantics.json").read_text())
    recorded = told[name]
    one, none = torch.ones(1).double(), torch.zeros(1).double()
    neuron = NIRNeuron(0.9 * one, one, none, told["thr"] * one, none, reset, strict=True)
    x = torch.full((len(recorded["s"]), 1, 1), told["x"]).double()
    spikes, membrane = neuron(x, tap=tap)
    assert spikes.flatten().tolist() == recorded["s"]
    if "v" in recorded:
        assert membrane.flatten().tolist() == pytest.approx(recorded["v"], abs=1e-5)
    else:
        assert membrane[-1].item() == pytest.approx(recorded["v_end"], abs=1e-6)


def in_double(make: Callable[[], NIRNetwork]) -> NIRNetwork:
    """A network of float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return make()
    finally:
        torch.set_default_dtype(torch.float32)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.n1, self.n2, self.n3 = LIF(4.0), IF(), LIF(2.0, decay_input=False, v_threshold=0.5)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.down = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.n1(over_time(x, self.stem, self.norm))
        b = self.n2(over_time(a, self.conv)) + a
        c = self.n3(over_time(b, nn.Identity(), self.down))
        return over_time(c.mean((-2, -1)), self.head)


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    frames = 2.0 * torch.rand(6, 3, 2, 8, 8)
    if name == "residual":
        return Residual(), frames
    if name == "pooled":
        layers = (nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), LIF(), nn.Flatten(), nn.Linear(36, 5))
        return TimeSequential(*layers, LIF()), frames
    if name == "vggsnn":
        small = {"features": "6/2 8/2", "channels": 1, "image_size": 28, "T": 4}
        return create_model(name, neuron="lif", **small), 3.0 * torch.rand(2, 1, 28, 28)
    return create_model(name, T=2), torch.rand(1, 3, 32, 32)


@pytest.mark.parametrize("name", ["residual", "pooled", "vggsnn", "tdbn_resnet18_cifar10"])
def test_what_is_written_is_read_as_it_was(name: str, tmp_path) -> None:
    pytest.importorskip("h5py")
    net, x = network(name)
    net = net.eval().double()
    with torch.no_grad():
        for parameter in net.parameters():  # so that every layer fires
            parameter.copy_(parameter.abs() if parameter.dim() > 1 else parameter)
        expected = net(x.double())
        save_nir(net, tmp_path / "net.nir", x.double(), dt=2e-3)
        back = in_double(lambda: load_nir(tmp_path / "net.nir"))
        assert back.dt == 2e-3
        sequence = x if x.dim() == 5 else x.expand(len(expected), *x.shape)
        found = back(sequence.double())
    assert expected.abs().sum() > 0
    assert torch.allclose(found, expected, rtol=0.0, atol=1e-12)


def test_weights_and_types_are_those_of_the_network() -> None:
    graph = nir_graph(Residual().eval(), torch.rand(2, 1, 2, 8, 8))
    types = {name: fields["type"] for name, fields in graph.nodes.items()}
    assert types == {
        "input": "Input", "stem": "Conv2d", "n1": "LIF", "conv": "Conv2d", "n2": "IF",
        "down": "Conv2d", "n3": "LIF", "the_network.mean": "AvgPool2d",
        "the_network.mean.flatten": "Flatten", "head": "Affine", "output": "Output",
    }  # fmt: skip
    assert ("n1", "down") in graph.edges and ("n2", "down") in graph.edges  # a sum is two edges
    assert graph.nodes["n1"]["tau"].flatten()[0] == pytest.approx(4e-3)
    assert graph.nodes["n3"]["r"].flatten()[0] == pytest.approx(2.0)
    assert graph.metadata == {"dt": 1e-3, "reset": "hard", "strict": False}


def test_a_subtracting_reset_is_written_only_on_purpose(tmp_path) -> None:
    net = TimeSequential(nn.Linear(4, 3), LIF(v_reset=None)).double()
    x = 3.0 * torch.rand(9, 2, 4).double()
    with pytest.raises(ValueError, match="subtracts its threshold, where NIR's go back to v_reset"):
        nir_graph(net, x)
    pytest.importorskip("h5py")
    save_nir(net, tmp_path / "soft.nir", x, pure=False)
    assert read_nir(tmp_path / "soft.nir").metadata["reset"] == "subtract"
    with torch.no_grad():
        assert torch.equal(in_double(lambda: load_nir(tmp_path / "soft.nir"))(x), net(x))


class Mixed(nn.Module):
    def __init__(self, mix: str) -> None:
        super().__init__()
        self.mix, self.a, self.n = mix, nn.Linear(4, 4), LIF()

    def forward(self, x: Tensor) -> Tensor:
        y = self.n(over_time(x, self.a))
        return {"product": lambda: y * y, "constant": lambda: y + torch.ones(4)}[self.mix]()


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, 2.0 * self.weight)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (TimeSequential(nn.Linear(4, 4), CLIF()), "a CLIF, is no IF or LIF neuron"),
        (TimeSequential(nn.Linear(4, 4), LIF(), LIF(strict=True)), "reset and fire alike"),
        (TimeSequential(nn.Linear(4, 4), nn.ReLU(), LIF()), "no node for 'relu'"),
        (TimeSequential(nn.Linear(4, 4), LIF(v_reset=-0.5)), "starts at v_reset=-0.5"),
        (TimeSequential(nn.Linear(4, 4), Doubled(4, 4)), "no node for 'linear' in 1"),
        (Mixed("product"), "no node for 'mul' in the network"),
        (Mixed("constant"), "no node that adds a constant"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_no_node_is_named(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nir_graph(net, torch.rand(3, 2, 4))


def graph(**nodes: dict) -> NIRGraph:
    names = ["input", *nodes, "output"]
    ends = {"input": {"type": "Input"}, "output": {"type": "Output"}}
    return NIRGraph(ends | nodes, tuple(pairwise(names)))


def test_currents_membranes_delays_and_thresholds_by_hand() -> None:
    """Forward Euler, as the differential equations say."""
    one = np.ones(2)
    x = torch.rand(12, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    synapse = {"tau_syn": 4 * one, "w_in": 2 * one}
    membrane = {"tau_mem": np.array([8.0, 5.0]), "r": 3 * one, "v_leak": 0.1 * one}
    spike = {"v_threshold": one, "v_reset": -0.2 * one}
    cuba = {"type": "CubaLIF", **synapse, **membrane, **spike}
    current = torch.zeros(2).double()
    v = torch.zeros(2).double()
    expected = []
    tau = torch.tensor([8.0, 5.0]).double()
    for step in x[:, 0]:
        current = current + (2 * step - current) / 4
        v = v + (0.1 - v + 3 * current) / tau
        spikes = (v > 1).double()
        v = torch.where(spikes > 0, torch.tensor(-0.2).double(), v)
        expected.append(spikes)
    found = NIRNetwork(graph(n=cuba), dt=1.0).double()(x)[:, 0]
    assert torch.equal(found, torch.stack(expected)) and found.sum() > 3
    li = {"type": "LI", "tau": 4 * one, "r": one, "v_leak": 0 * one}
    v, expected = torch.zeros(2).double(), []
    for step in x[:, 0]:
        v = v + (step - v) / 4
        expected.append(v)
    found = NIRNetwork(graph(n=li), dt=1.0).double()(x)[:, 0]
    assert torch.allclose(found, torch.stack(expected))
    integral = NIRNetwork(graph(n={"type": "I", "r": 2 * one}), dt=0.5).double()(x)
    assert torch.allclose(integral, x.cumsum(0))
    above = NIRNetwork(graph(n={"type": "Threshold", "threshold": 0.5 * one}), dt=1.0)(x)
    assert torch.equal(above, (x > 0.5).double())
    scaled = NIRNetwork(graph(n={"type": "Scale", "scale": 3 * one}), dt=1.0).double()(x)
    assert torch.equal(scaled, 3 * x)


def test_delays_are_each_neurons_own_and_stream() -> None:
    delay = {"type": "Delay", "delay": np.array([0.0, 2e-3, 3e-3])}
    net = NIRNetwork(graph(d=delay), dt=1e-3)
    x = torch.rand(7, 2, 3)
    found = net(x)
    assert torch.equal(found[..., 0], x[..., 0])
    assert torch.equal(found[2:, :, 1], x[:-2, :, 1]) and not found[:2, :, 1].any()
    assert torch.equal(found[3:, :, 2], x[:-3, :, 2]) and not found[:3, :, 2].any()
    with streaming(net):
        assert torch.equal(torch.cat([net(x[:2]), net(x[2:3]), net(x[3:])]), found)


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ({"n": {"type": "LIFF"}}, {}, "node 'n': unknown type 'LIFF'; did you mean 'LIF'"),
        ({"n": {"type": "Affine"}}, {}, "node 'n', a Affine, has no 'weight'"),
        ({}, {"dt": 0.0}, "dt is above 0 seconds"),
        ({}, {"reset": "soft"}, "unknown reset 'soft'"),
        ({"n": {"type": "Input"}}, {}, "one input and one output"),
    ],
)
def test_what_cannot_be_run_is_refused(nodes: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NIRNetwork(graph(**nodes), **({"dt": 1e-3} | options))


def test_circles_and_loose_edges_are_refused() -> None:
    ends = {"input": {"type": "Input"}, "output": {"type": "Output"}, "a": {"type": "Identity"}}
    with pytest.raises(ValueError, match="recurrent edges are not supported"):
        NIRNetwork(NIRGraph(ends, (("input", "a"), ("a", "a"), ("a", "output"))), 1e-3)
    with pytest.raises(ValueError, match="there is no node 'b'"):
        NIRNetwork(NIRGraph(ends, (("input", "b"),)), 1e-3)


def test_a_learnt_time_constant_is_one_of_the_layer() -> None:
    net = TimeSequential(nn.Linear(4, 3), LIF(), nn.Linear(3, 3), PLIF())
    assert nir_graph(net, torch.rand(5, 2, 4)).nodes["3"]["type"] == "LIF"


def test_h5py_is_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install rheobase\[nir\]"):
        read_nir(tmp_path / "net.nir")
