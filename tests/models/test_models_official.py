"""Official checkpoints: spellings, wrappers, and what is refused."""

import re

import pytest
import torch
from model_toys import small

from rheobase.models import load_official
from rheobase.models.spikformer import FAMILY

KWARGS = {"num_heads": 2, "T": 3}


def official_cifar(net):
    """The state dict of our network under the names of the official CIFAR file."""

    def spelt(key):
        key = re.sub(r"stem\.stages\.0\.(\w+)", r"patch_embed.proj_\1", key)
        key = re.sub(r"stem\.stages\.(\d)\.(\w+)", r"patch_embed.proj_\2\1", key)
        key = re.sub(r"stem\.position\.(\w+)", r"patch_embed.rpe_\1", key)
        key = re.sub(r"\.(q|k|v|proj|fc1|fc2)\.(\w+)", r".\1_\2", key).replace("blocks.", "block.")
        key = key.replace("_norm", "_bn")
        return key if "patch_embed" in key else key.replace("_conv", "_linear")

    state = {}
    for key, value in net.state_dict().items():
        name = spelt(key)
        state[name] = value.flatten(1) if "_linear.weight" in name else value
    for i in range(len(net.blocks)):
        state[f"block.{i}.norm1.weight"] = torch.ones(32)
    return state


@pytest.fixture
def net():
    return small("spikformer", scale=0.125).eval()


def same(a, b):
    x = torch.rand(2, a.config.channels, a.config.image_size, a.config.image_size)
    return torch.equal(a.eval()(x), b.eval()(x))


def test_every_official_spelling_is_known(net):
    state = official_cifar(net)
    assert {"patch_embed.proj_conv1.weight", "block.0.attn.q_linear.bias"} <= set(state)
    for key in state:
        assert FAMILY.official["spikformer"].rename(key) != key or key.startswith("head."), key


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["bare", "model", "state_dict of DataParallel"],
)
def test_wrappers_and_prefixes(net, wrap):
    with pytest.warns(UserWarning, match=r"1 tensors.*block\.0\.norm1\.weight"):
        loaded = load_official("spikformer", wrap(official_cifar(net)), KWARGS)
    assert (loaded.config.heads, loaded.T, loaded.config.token_layers) == (2, 3, "linear")
    assert same(net, loaded)


def test_first_spelling_of_the_stem(net):
    state = {
        re.sub(
            r"embed\.proj_(conv|bn)(\d?)", lambda m: f"embed.block{int(m[2] or 0) + 1}_{m[1]}", key
        ): value
        for key, value in official_cifar(net).items()
        if "norm1" not in key
    }
    assert "patch_embed.block4_conv.weight" in state
    assert same(net, load_official("spikformer", state, KWARGS))


def test_number_of_heads_comes_from_the_preset_or_must_be_given(net):
    state = official_cifar(net)
    with pytest.raises(ValueError, match="num_heads"):
        load_official("spikformer", state)


def test_misfits_are_named(net):
    state = official_cifar(net)
    del state["head.bias"], state["block.0.norm1.weight"]
    with pytest.raises(ValueError, match=r"missing: head\.bias"):
        load_official("spikformer", state, KWARGS)
    state["head.bias"], state["head.scale"] = torch.zeros(10), torch.ones(1)
    with pytest.raises(ValueError, match=r"not known: head\.scale"):
        load_official("spikformer", state, KWARGS)
    del state["head.scale"]
    with pytest.raises(ValueError, match=r"head\.bias.*shape \[7\].*\[10\]"):
        load_official("spikformer", state | {"head.bias": torch.zeros(7)}, KWARGS)
    with pytest.raises(ValueError, match=r"head\.bias.*not finite"):
        load_official("spikformer", state | {"head.bias": torch.full((10,), torch.nan)}, KWARGS)
    with pytest.raises(ValueError, match="not a Spikformer checkpoint"):
        load_official("spikformer", {"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="not a ResNet checkpoint"):
        load_official("sew_resnet", state)
    with pytest.raises(ValueError, match=r"unknown system 'spikformr'.*'spikformer'"):
        load_official("spikformr", state)


@pytest.mark.parametrize("container", ["", "module."])
def test_first_spelling_of_sew_resnet(container):
    net = small("sew_resnet", connect="IAND")

    def spelt(key):
        key = re.sub(r"(layer.*)conv(\d)\.", rf"\1conv\2.{container}0.", key)
        key = re.sub(r"(layer.*)bn(\d)\.", rf"\1conv\2.{container}1.", key)
        return re.sub(r"downsample\.(\d)", rf"downsample.0.{container}\1", key)

    state = {spelt(key): value for key, value in net.state_dict().items()}
    assert f"layer2.0.downsample.0.{container}1.running_var" in state
    loaded = load_official("sew_resnet", state, {"connect_f": "IAND", "T": 3})
    assert (loaded.config.depth, loaded.config.connect) == (18, "IAND")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net.eval()(x), loaded.eval()(x))


def test_plain_resnet_loads_without_a_join():
    net = small("spiking_resnet")
    loaded = load_official("spiking_resnet_direct", net.state_dict(), {"T": 3})
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(net.eval()(x), loaded.eval()(x))
