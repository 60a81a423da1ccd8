"""``rheobase import``: released checkpoints become files that the library loads."""

import argparse
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.data import TensorDataset

import rheobase.data
from rheobase import cli
from rheobase.models import load_model, load_official
from rheobase.models.foreign import load_module
from rheobase.models.golden import read_golden

GOLDEN = Path(__file__).parents[1] / "goldens" / "models" / "qkformer_cifar.npz"


@pytest.fixture
def weights():
    """A small QKFormer under official names."""
    return read_golden(GOLDEN).weights()


@pytest.fixture
def checkpoint(tmp_path, weights):
    path = tmp_path / "qkformer.pth"
    state = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"model": state | {"module.total_ops": torch.zeros(1)}, "epoch": 9}, path)
    return path


def run(capsys, *words):
    status = cli.main(["import", *map(str, words)])
    return status, *capsys.readouterr()


def test_import_and_load(tmp_path, checkpoint, weights, capsys):
    net = load_official("qkformer", weights, {"img_size_h": 16}).eval()
    target = tmp_path / "model.safetensors"
    status, out, err = run(capsys, checkpoint, "-o", target, "--set", "img_size_h=16")
    assert (status, err) == (0, "")
    said = dict(line.split(None, 1) for line in out.splitlines())
    assert said["system"] == said["family"] == "qkformer"
    assert (said["model"], said["T"]) == ("of no published size", "4")
    assert said["parameters"] == f"{sum(p.numel() for p in net.parameters()):,}"
    assert "1 tensors that the official code never uses were left out: total_ops" in said["note"]
    again = load_model(target).eval()
    assert again.config == net.config
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_what_training_scripts_save_beside_the_weights(tmp_path, weights, capsys, kind, core):
    """Their arguments (QKFormer, SGLFormer, Meta-SpikeFormer, ...), and numbers of NumPy's."""
    source, target = tmp_path / "checkpoint.pth", tmp_path / "model.safetensors"
    args = argparse.Namespace(lr=1e-3, model="QKFormer", dist_on_itp=False, gpu=kind(1))
    beside = {"args": args, "max_test_acc1": kind(1), "scaler": {"scale": 65536.0}, "epoch": 199}
    torch.save({"model": weights, **beside}, source, _use_new_zipfile_serialization=False)
    content = source.read_bytes()
    assert b"argparse" in content and b"multiarray" in content
    source.write_bytes(content.replace(b"numpy._core", core))
    status, _, err = run(capsys, source, "-o", target, "--set", "img_size_h=16")
    assert (status, err) == (0, "")
    assert load_model(target).config.dim == 64


def test_keys_that_are_never_used_are_reported_and_missing_ones_refused(tmp_path, capsys):
    """Spikformer's event file has layer norms and a position embedding that nothing calls."""
    weights = read_golden(GOLDEN.with_name("spikformer_dvs.npz")).weights()
    source, target = tmp_path / "spikformer.pth", tmp_path / "model.safetensors"
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, source)
    status, out, err = run(capsys, source, "-o", target, "--set", "num_heads=2")
    assert (status, err) == (0, "")
    said = " ".join(out.split())
    assert "7 tensors that the official code never uses were left out" in said
    assert "block.0.norm1.bias" in said
    del weights["block.0.mlp.fc1_bn.weight"]
    torch.save(weights, source)
    status, out, err = run(
        capsys,
        source,
        "-o",
        target,
        "--system",
        "spikformer",
        "--set",
        "num_heads=2",
        "--overwrite",
    )
    assert (status, out) == (2, "")
    assert "fc1_bn.weight" in err or "fc1.norm.weight" in err


def test_an_imported_model_is_evaluated(tmp_path, checkpoint, capsys, monkeypatch):
    target = tmp_path / "model.safetensors"
    assert run(capsys, checkpoint, "-o", target)[0] == 0
    data = TensorDataset(torch.rand(6, 3, 16, 16), torch.arange(6))
    monkeypatch.setattr(rheobase.data, "get_dataset", lambda name, **options: data)
    assert cli.main(["eval", str(target), "data.name=cifar10", "data.mean=[0.5, 0.5, 0.5]",
                     "data.std=[0.25, 0.25, 0.25]"]) == 0  # fmt: skip
    assert "samples      6" in capsys.readouterr().out


def test_safetensors_and_official_behaviour(tmp_path, weights, capsys):
    source, target = tmp_path / "weights.safetensors", tmp_path / "model.safetensors"
    safetensors.torch.save_file(weights, source)
    assert run(capsys, source, "-o", target, "--official", "--set", "T=2")[0] == 0
    again = load_model(target)
    assert (again.config.compat, again.T) == ("official", 2)


def test_an_existing_file_is_kept_unless_asked(tmp_path, checkpoint, capsys):
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"precious")
    status, out, err = run(capsys, checkpoint, "-o", target)
    assert (status, out) == (2, "")
    assert "exists" in err
    assert target.read_bytes() == b"precious"
    assert run(capsys, checkpoint, "-o", target, "--overwrite")[0] == 0
    assert load_model(target).config.dim == 64


class Code:
    """What a malicious checkpoint would run when unpickled."""

    def __reduce__(self):
        return (sys.exit, ("it ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda path, state: torch.save({"model": state, "args": Code()}, path),
            "refused, nothing",
        ),
        (lambda path, state: path.write_bytes(pickle.dumps(Code())), "refused, nothing"),
        (lambda path, state: path.write_bytes(path.read_bytes()[:5000]), "is damaged"),
        (lambda path, state: torch.save([1, 2], path), "expected a dictionary"),
        (lambda path, state: torch.save({"lstm.weight": torch.ones(2)}, path), "nor are any near"),
        (
            lambda path, state: torch.save(
                {k: v for k, v in state.items() if "mlp" not in k}, path
            ),
            "the nearest are qkformer",
        ),
    ],
    ids=["code", "pickle", "truncated", "list", "unknown", "incomplete"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, checkpoint, weights, capsys, content, message):
    content(checkpoint, weights)
    target = tmp_path / "model.safetensors"
    status, out, err = run(capsys, checkpoint, "-o", target)
    assert (status, out) == (2, "")
    assert message in err
    assert not target.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["qkformer.pth"]


def test_bad_arguments(tmp_path, checkpoint, capsys):
    target = tmp_path / "model.safetensors"
    assert "expected key=value" in run(capsys, checkpoint, "-o", target, "--set", "num_heads")[2]
    assert "....safetensors" in run(capsys, checkpoint, "-o", tmp_path / "model.pth")[2]
    assert "no folder" in run(capsys, checkpoint, "-o", tmp_path / "a" / "m.safetensors")[2]
    assert "No such file" in run(capsys, tmp_path / "none.pth", "-o", target)[2]
    err = run(capsys, checkpoint, "-o", target, "--system", "spikformer")[2]
    assert "weights of qkformer" in err


def test_weights_of_foreign_networks_may_lie_beside_arguments(tmp_path):
    """A teacher's or an ANN's file is read as a checkpoint is: plain data pass, code does not."""
    layer = torch.nn.Linear(3, 2)
    torch.save({"state_dict": layer.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "a")
    read = load_module("torch.nn:Linear", tmp_path / "a", in_features=3, out_features=2)
    assert torch.equal(read.weight, layer.weight)
    torch.save({"state_dict": layer.state_dict(), "hook": print}, tmp_path / "b")
    with pytest.raises(ValueError, match=r"refused, nothing in it was executed"):
        load_module("torch.nn:Linear", tmp_path / "b", in_features=3, out_features=2)
