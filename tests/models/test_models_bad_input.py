"""What the vision transformers refuse at the door, family by family."""

import re

import pytest
import torch
from model_toys import SMALL, small

from rheobase.models import create_model, load_model, model_family, save_model
from rheobase.models.sstformer import beside

# Those that cut images into patches; convolutions and spiking ResNets take any size.
PATCHES = [
    name
    for name in SMALL
    if re.match("spike_driven|spikeformer|spiking_(resformer|vit)|ost|tim|autost|dista|mast", name)
    or name.removesuffix("_events").removesuffix("_cifar").endswith("former")
    or "spikformer" in name
]
ZOO = [*PATCHES, "revs_resnet", "revs_resnet_events"]


@pytest.mark.parametrize("name", SMALL)
def test_wrong_channels_ranks_and_kinds_of_numbers(name):
    net = small(name)
    side, channels = net.config.image_size, net.config.channels
    with pytest.raises(ValueError, match=f"{channels} input channels.*channels={channels + 1}"):
        net(torch.rand(net.T, 1, channels + 1, side, side))
    with pytest.raises(ValueError, match=r"\[N, C, H, W\] or .*unsqueeze"):
        net(torch.rand(channels, side, side))
    with pytest.raises(TypeError, match=r"uint8; call x\.float"):
        net(torch.zeros(1, channels, side, side, dtype=torch.uint8))
    with pytest.raises(ValueError, match="empty"):
        net(torch.rand(0, channels, side, side))


@pytest.mark.parametrize("name", PATCHES)
def test_images_that_do_not_divide(name):
    net = small(name)
    side = net.config.image_size + 1
    with pytest.raises(ValueError, match=rf"multiples of .*{side}.*; resize"):
        net(torch.rand(1, net.config.channels, side, side))


@pytest.mark.parametrize("name", ZOO)
def test_configurations_that_do_not_fit(name):
    preset, overrides = SMALL[name]
    config = small(name).config

    def refused(message, **changes):
        with torch.device("meta"), pytest.raises(ValueError, match=message):
            create_model(preset, **(overrides | changes))

    refused("num_classes must be positive, got 0", num_classes=0)
    refused("channels must be positive, got -1", channels=-1)
    refused("T must be positive, got 0", T=0)
    if name in PATCHES:
        refused("not a multiple of .*; resize", image_size=config.image_size + 1)
    heads = getattr(config, "heads", None)
    if isinstance(heads, int):
        refused("heads=7 does not divide .*; take", heads=7)
    elif heads is not None:  # one number a stage or block
        refused("heads=7 does not divide .*; take", heads=(7,) * len(heads))


@pytest.mark.parametrize("name", ["swformer", "swformer_events", "spikformer_lt_wavelet"])
def test_grids_that_wavelets_cannot_pair(name):
    net = small(name)
    side = 3 * (net.config.patch_size if "lt" in name else net.config.image_size // 2)
    with pytest.raises(ValueError, match=r"(power of two|pairs).* got (3|9); (change|resize)"):
        net(torch.rand(1, net.config.channels, side, side))


def test_frames_and_events_that_do_not_go_together():
    frames, events = torch.rand(8, 1, 3, 64, 64), torch.rand(8, 1, 2, 6, 9)
    for wrong in ((frames[0], events), (frames, events[0]), (frames[:4], events)):
        with pytest.raises(ValueError, match=r"expected frames .* and events .*, got"):
            beside(*wrong)
    net = small("sstformer")
    with pytest.raises(ValueError, match="T=8 time steps and was given T=4"):
        net(beside(frames, events)[:4])
    with pytest.raises(ValueError, match=r"side 64, got .*; resize"):
        net(torch.rand(8, 1, 5, 80, 80))


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("spikformer_8_512", {"heads": 7}, "heads=7 does not divide dim=512"),
        ("spikformer_8_512", {"image_size": 225}, "image_size=225 is not a multiple"),
        ("spikformer_8_512", {"dim": 100}, "multiple of 8"),
        ("spike_driven_transformer_8_512", {"heads": 7}, "heads=7 does not divide"),
        ("spike_driven_transformer_8_512", {"image_size": 225}, "image_size=225"),
        ("spikingformer_8_512", {"heads": 7}, "heads=7 does not divide"),
        ("qkformer_10_768", {"heads": 7}, "heads=7 does not divide"),
        ("sglformer_8_384", {"heads": 7}, "heads=7"),
        ("sglformer_8_384", {"global_blocks": -1}, "global_blocks must not be negative, got -1"),
        ("swformer_8_512", {"image_size": 224}, "power of two"),
        ("swformer_cifar10_4_384", {"image_size": 48}, "power of two"),
        ("swformer_cifar10_4_384", {"groups": 7}, "groups=7 does not divide"),
        ("revsformer_cifar10_2_384", {"heads": 7}, "heads=7 does not divide"),
        ("spiking_resformer_ti", {"heads": (1, 3, 7)}, "7"),
        ("spike_driven_transformer_v2_8_512", {"heads": 7}, "7"),
        ("spike_driven_transformer_v3_s", {"heads": 7}, "7"),
        ("sts_transformer_dvs128_2_256", {"heads": 7}, "7"),
        ("tim_cifar10dvs", {"heads": 7}, "7"),
        ("autost_cifar10_uniform_4_384", {"heads": (7, 7, 7, 7)}, "7"),
        ("sstformer_poker", {"T": 6}, "in fours of steps"),
        (
            "sstformer_poker",
            {"image_size": 208, "dim": 49 * 8},
            "tokens of events=16 does not divide",
        ),
        ("sstformer_poker", {"dim": 32}, "tokens=64 does not divide dim=32"),
    ],
)
def test_sizes_that_do_not_fit(model, overrides, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(model, **overrides)


@pytest.mark.parametrize("name", SMALL)
def test_another_number_of_classes_takes_a_new_head_only_if_asked(tmp_path, name):
    net, path = small(name), tmp_path / "net.safetensors"
    save_model(net, path, model_family(SMALL[name][0]))
    classes = net.config.num_classes + 3
    with pytest.raises(ValueError, match=rf"not {classes}; give fresh_head=True for an untrained"):
        load_model(path, num_classes=classes)
    old = net.state_dict()
    new = load_model(path, num_classes=classes, fresh_head=True).state_dict()
    assert old.keys() == new.keys()
    kept = [key for key in old if old[key].shape == new[key].shape]
    assert len(kept) < len(old)
    assert all(torch.equal(old[key], new[key]) for key in kept)
