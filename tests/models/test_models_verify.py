"""`verify` must catch what is wrong: a golden of our own, then damaged in every way."""

import json

import numpy as np
import pytest
import torch
from model_toys import small

from rheobase.models.golden import read_golden
from rheobase.verify import _active, _miscount, print_reports, verify, verify_many


def record(name="LIFNode", **changes):
    constants = {
        "type": name, "tau": 2.0, "v_threshold": 1.0, "v_reset": 0.0, "detach_reset": True,
        "decay_input": True, "surrogate": "Sigmoid", "alpha": 4.0,
    }  # fmt: skip
    return constants | changes


@pytest.fixture
def arrays():
    """A golden of a small Spikformer, in a dictionary."""
    net = small("spikformer", scale=0.125).double().eval()
    torch.manual_seed(2)
    x = torch.rand(2, 3, 8, 8).requires_grad_()
    rates = {}
    for name, module in net.named_modules():
        if type(module).__name__ == "LIF":
            module.register_forward_hook(
                lambda _m, _in, out, name=name: rates.update({name: out.detach().mean().item()})
            )
    output = net(x.double()).mean(0)
    vector = torch.rand(2, 10)
    (output * vector).sum().backward()
    config = {
        "format": "rheobase-model-golden/1",
        "name": "small",
        "system": "spikformer",
        "kwargs": {"num_heads": 2, "T": 3},
        "neurons": {
            "stem.stages.0.neuron": record(),
            "blocks.0.attn.neuron": record(v_threshold=0.5),
        },
    }
    numbers = {
        "input": x.detach().numpy(),
        "output": output.detach().numpy(),
        "grad_vector": vector.numpy(),
        "grad/input": x.grad.numpy(),
        "grad/head.weight": net.head.weight.grad.numpy(),
    }
    weights = {f"sd/{k}": v.float().numpy() for k, v in net.state_dict().items()}
    texts = {"config": np.array(json.dumps(config)), "rates": np.array(json.dumps(rates))}
    return numbers | weights | texts


def run(tmp_path, arrays):
    np.savez(tmp_path / "golden.npz", **arrays)
    return verify(tmp_path / "golden.npz")


def with_config(arrays, **changes):
    config = json.loads(str(arrays["config"])) | changes
    return arrays | {"config": np.array(json.dumps(config))}


def failed(report):
    return [check.name for check in report.checks if not check.holds]


def test_agreement(tmp_path, arrays, capsys):
    report = run(tmp_path, arrays)
    assert report.holds, str(report)
    assert report.worst < 1e-6
    names = [check.name for check in report.checks]
    assert {"output", "gradient of input", "gradient of head.weight"} <= set(names)
    assert sum(name.startswith("spikes of") for name in names) == 12
    print_reports(verify_many([tmp_path / "golden.npz"]))
    assert "worst error" in capsys.readouterr().out


def test_a_file_that_is_refused_leaves_the_others(tmp_path, arrays, capsys):
    np.savez(tmp_path / "a.npz", **with_config(arrays, kwargs={}))  # number of heads not told
    np.savez(tmp_path / "b.npz", **arrays)
    reports = verify_many([tmp_path])
    assert [report.status for report in reports] == ["failed", "ok"]
    print_reports(reports)
    assert "num_heads" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["output", "grad/input", "grad/head.weight"])
def test_a_wrong_number_fails(tmp_path, arrays, name):
    wrong = arrays[name].copy()
    wrong.flat[0] += 1e-3 * np.abs(wrong).max()
    report = run(tmp_path, arrays | {name: wrong})
    assert not report.holds
    assert failed(report) == [name.replace("grad/", "gradient of ")]


def test_one_spike_too_many_fails(tmp_path, arrays):
    rates = json.loads(str(arrays["rates"]))
    rates["stem.stages.0.neuron"] += 1 / (3 * 2 * 4 * 8 * 8)
    report = run(tmp_path, arrays | {"rates": np.array(json.dumps(rates))})
    assert failed(report) == ["spikes of stem.stages.0.neuron"]


def test_one_spike_among_millions_counts():
    outputs = torch.zeros(3, 7_000_000)
    outputs[:, ::3] = 1
    spikes, rate = outputs.sum().item(), outputs.double().mean().item()
    assert _miscount([outputs], rate, _active) == 0
    assert _miscount([outputs], (spikes + 1) / outputs.numel(), _active) == pytest.approx(1, 1e-3)


def test_a_neuron_that_we_lack_fails(tmp_path, arrays):
    rates = json.loads(str(arrays["rates"])) | {"block.0.attn.other_lif": 0.5}
    report = run(tmp_path, arrays | {"rates": np.array(json.dumps(rates))})
    assert failed(report) == ["spikes of block.0.attn.other_lif"]


def test_another_constant_of_a_neuron_fails(tmp_path, arrays):
    neurons = {"head_lif": record(), "stem.stages.0.neuron": record()}
    neurons |= {"blocks.0.attn.neuron": record(v_threshold=0.4)}
    report = run(tmp_path, with_config(arrays, neurons=neurons))
    assert failed(report) == ["constants of blocks.0.attn.neuron"]


def test_settings_of_the_neuron_are_used(tmp_path, arrays):
    official = {"neuron": "LIFNode", "neuron_kwargs": {"tau": 3.0, "v_reset": None}}
    report = run(tmp_path, with_config(arrays, neurons={}, official=official))
    assert "output" in failed(report)


@pytest.mark.parametrize(
    "changes",
    [{"system": "sdit"}, {"neurons": {"a": record("HodgkinHuxleyNode")}}],
    ids=["system", "neuron"],
)
def test_what_we_lack_is_not_built(tmp_path, arrays, changes):
    report = run(tmp_path, with_config(arrays, **changes))
    assert report.status == "not built"
    assert not report.holds
    assert report.notes


def test_damaged_files_are_refused(tmp_path, arrays):
    path = tmp_path / "golden.npz"
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"golden\.npz is not a readable"):
        verify(path)
    np.savez(path, config=np.array({"format": "pickled"}, dtype=object))
    with pytest.raises(ValueError, match="not a readable"):
        verify(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="not a golden"):
        verify(path)
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "none.npz")


def test_weights_by_recipe(tmp_path):
    config = {
        "format": "rheobase-model-golden/1",
        "system": "sew_resnet",
        "weights": {
            "recipe": "crc32/1",
            "bias0": 0.5,
            "keys": {
                "bn1.running_mean": [4000],
                "bn1.running_var": [4000],
                "bn1.weight": [4000],
                "bn1.bias": [4000],
                "bn1.num_batches_tracked": [],
                "conv1.weight": [40, 50, 2, 2],
                "fc.bias": [3],
            },
        },
    }
    path = tmp_path / "recipe.npz"
    np.savez(path, config=np.array(json.dumps(config)), **{"sd/fc.bias": np.ones(3, np.float32)})
    weights = read_golden(path).weights()
    assert weights["bn1.running_mean"].std() == pytest.approx(0.2, rel=0.05)
    assert weights["bn1.bias"].mean() == pytest.approx(0.5, abs=0.02)
    assert weights["bn1.running_var"].min() > 0.6
    assert weights["bn1.weight"].max() < 1.4
    assert weights["conv1.weight"].std() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    assert weights["bn1.num_batches_tracked"] == 0
    assert weights["fc.bias"].tolist() == [1, 1, 1]
