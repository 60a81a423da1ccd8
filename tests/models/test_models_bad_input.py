"""What the vision transformers refuse at the door, family by family."""

import pytest
import torch
from model_toys import SMALL, small

from rheobase.models import create_model

# Real patches or whole images: any size is sensible, or another check is theirs.
TRANSFORMERS = [
    name
    for name in SMALL
    if "former" in name or name.startswith(("ost", "tim", "autost", "dista", "spiking_vit"))
]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_images_that_do_not_divide_and_wrong_channels(name):
    net = small(name)
    side, channels = net.config.image_size, net.config.channels
    with pytest.raises(ValueError, match=r"image|divi|multiple|patch|power|token|frames"):
        net(torch.rand(1, channels, side + 1, side + 1))
    with pytest.raises(ValueError, match=rf"channels.*{channels + 1}|{channels + 1}.*channels"):
        net(torch.rand(net.T, 1, channels + 1, side, side))


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
    ],
)
def test_sizes_that_do_not_fit(model, overrides, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(model, **overrides)
