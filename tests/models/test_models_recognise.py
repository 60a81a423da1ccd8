"""Checkpoints without a name, of another family, of other classes; wrappers and counters."""

from pathlib import Path

import pytest
import torch
from model_toys import small

from rheobase.models import create_model, load_model, load_official, recognise, save_model
from rheobase.models.golden import read_golden
from rheobase.models.recognise import likely_systems

GOLDEN = Path(__file__).parents[1] / "goldens" / "models" / "qkformer_cifar.npz"


@pytest.fixture
def weights():
    """A small QKFormer under official names: 3 blocks of 64 channels, 10 classes."""
    return read_golden(GOLDEN).weights()


@pytest.fixture
def qkformer(weights):
    return load_official("qkformer", weights, {"img_size_h": 16}).eval()


def test_the_only_system_is_found(qkformer, weights):
    (found,) = recognise(weights)
    assert (found.system, found.presets, found.untold) == ("qkformer", (), ())
    net = load_official(None, {"net": {f"module.{k}": v for k, v in weights.items()}}, {"T": 3})
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net.eval()(x)[0], qkformer(x)[0])
    assert (net.T, qkformer.T) == (3, 4)


def test_systems_alike_are_named():
    with torch.device("meta"):
        shapes = create_model("sew_resnet18").state_dict()
    weights = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
    assert {found.presets for found in recognise(weights)} == {
        ("sew_resnet18",), ("spiking_resnet18",),
    }  # fmt: skip
    with pytest.raises(ValueError, match="fit sew_resnet and spiking_resnet_direct alike; give"):
        load_official(None, weights)


def test_what_weights_do_not_tell_is_asked_for():
    weights = small("spikformer").state_dict()
    (found,) = recognise(weights)
    assert (found.system, found.untold) == ("spikformer", ("num_heads",))
    with pytest.raises(ValueError, match="give kwargs num_heads"):
        load_official(None, weights)


def test_another_family_is_named(weights):
    with pytest.raises(ValueError, match=r"not a Spikformer checkpoint.*weights of qkformer"):
        load_official("spikformer", weights)


@pytest.mark.parametrize(
    "system", ["spike_driven_transformer_v3", "spike_driven_transformer", "rev_sresnet"]
)
def test_whoever_is_asked_for_names_them(weights, system):
    """Those that tell their checkpoints by a key of their own, or want keywords, too."""
    with pytest.raises(ValueError, match="they are the weights of qkformer"):
        load_official(system, weights)
    del weights["head.bias"]  # no longer a whole checkpoint of anything
    with pytest.raises(ValueError, match="most of their names are those of qkformer"):
        load_official(system, weights)


def test_heads_of_each_block_are_asked_for():
    weights = small("autost").state_dict()
    with pytest.raises(ValueError, match=r"num_heads are of each block.*got 4"):
        load_official("autost", weights, {"num_heads": 4})


def test_unknown_weights_name_the_nearest(weights):
    del weights["head.bias"]
    assert likely_systems(weights)[0] == "qkformer"
    with pytest.raises(ValueError, match=r"no system .* the nearest are qkformer"):
        load_official(None, weights)
    with pytest.raises(ValueError, match="nor are any near"):
        load_official(None, {"encoder.lstm.weight_ih_l0": torch.zeros(4, 4)})
    with pytest.raises(ValueError, match="holds no tensors; its keys: epoch"):
        load_official(None, {"epoch": 3})


def test_profilers_counters_are_left_out_and_early_batch_norms_load(weights):
    for key in [key for key in weights if key.endswith("num_batches_tracked")]:
        del weights[key]
    weights |= {"total_ops": torch.zeros(1), "head.total_params": torch.zeros(1)}
    with pytest.warns(UserWarning, match=r"2 tensors .*total_ops, head\.total_params"):
        load_official(None, weights)


def test_averaged_weights(weights):
    averaged = {key: value + 0 for key, value in weights.items()} | {"n_averaged": torch.tensor(7)}
    averaged["head.bias"] = torch.ones(10)
    checkpoint = {"model": weights, "model_ema": averaged, "epoch": 3}
    plain = load_official(None, checkpoint)
    assert torch.equal(plain.head.bias, weights["head.bias"])
    with pytest.warns(UserWarning, match="n_averaged"):
        mean = load_official(None, checkpoint, averaged=True)
    assert mean.head.bias.tolist() == [1.0] * 10
    with pytest.raises(ValueError, match="no averaged weights"):
        load_official(None, weights, averaged=True)


def test_keywords_without_effect_are_named(weights):
    kwargs = {"T": 2, "embed_dims": 64, "qkv_bias": False, "num_head": 8, "mlp_ratios": 3}
    with pytest.warns(UserWarning, match=r"change nothing here: num_head=8, mlp_ratios=3; read"):
        load_official("qkformer", weights, kwargs)


def test_another_number_of_classes_takes_a_new_head_only_if_asked(weights):
    with pytest.raises(ValueError, match=r"of 10 classes, kwargs say 100.*num_classes="):
        load_official("qkformer", weights, {"num_classes": 100})
    net = load_official("qkformer", weights, num_classes=100)
    assert net.head.weight.shape == (100, 64)
    assert torch.equal(
        net.stages[0][0].attn.q.conv.weight.flatten(1),
        weights["stage1.0.tssa.q_conv.weight"].flatten(1),
    )


@pytest.mark.parametrize("family", ["qkformer", "spiking_resformer", "tim"])
def test_saved_networks_load(tmp_path, family):
    net = small(family)
    save_model(net, tmp_path / "net.safetensors", family, source="a test")
    again = load_model(tmp_path / "net.safetensors")
    assert again.config == net.config
    ours, theirs = net.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_saved_networks_with_changes(tmp_path, qkformer):
    path = tmp_path / "net.safetensors"
    save_model(qkformer, path, "qkformer")
    net = load_model(path, T=7, image_size=32, neuron="if")
    assert (net.T, net.config.image_size) == (7, 32)
    with pytest.raises(ValueError, match=r"has the neuron parameters.*neuron\.w"):
        load_model(path, neuron="plif")
    with pytest.raises(ValueError, match="a Linear has no config"):
        save_model(net.head, path, "qkformer")
    with pytest.raises(ValueError, match="for 10 classes, not 7; give fresh_head=True"):
        load_model(path, num_classes=7)
    net = load_model(path, num_classes=7, fresh_head=True)
    assert net.head.weight.shape == (7, 64)
    assert torch.equal(
        net.stages[0][0].mlp.fc1.conv.weight, qkformer.stages[0][0].mlp.fc1.conv.weight
    )
    with pytest.raises(ValueError, match="do not fit these overrides"):
        load_model(path, num_classes=7, dim=32, fresh_head=True)
    with pytest.raises(ValueError, match=r"'num_class'.*'num_classes'"):
        load_model(path, num_class=7)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.safetensors")
