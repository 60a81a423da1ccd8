"""Meta-SpikeFormer for dense prediction: sizes. `verify` holds its heads to the released code."""

from __future__ import annotations

import pytest
import torch

from rheobase.models import create_model
from rheobase.models.meta_spikeformer_dense import BoxHead, MaskHead, RegionHead, SpikePyramid
from rheobase.models.spike_driven_transformer_v2 import meta_spikeformer_neuron

MAKE = meta_spikeformer_neuron()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("spike_driven_transformer_v2_15m_ade20k", 16_470_142),
        ("spike_driven_transformer_v2_55m_ade20k", 61_520_022),
    ],
)
def test_segmentation_networks_have_the_parameters_of_the_released_configs(name, parameters):
    with torch.device("meta"), torch.no_grad():
        net = create_model(name)
        assert net.eval()(torch.empty(1, 3, 64, 96)).shape == (1, 1, 150, 64, 96)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("widths", "parameters"),
    [((64, 128, 256, 360), 34_863_320), ((128, 256, 512, 640), 75_007_728)],
)
def test_detection_networks_have_the_parameters_of_the_released_configs(widths, parameters):
    with torch.device("meta"):
        backbone = create_model("spike_driven_transformer_v2_8_512", widths=widths)
        del backbone.head
        parts = [
            backbone,
            SpikePyramid(widths, 256, MAKE),
            RegionHead(256, 3, MAKE),
            BoxHead(256, 7, 1024, 80, MAKE),
            MaskHead(256, 4, 80, MAKE),
        ]
    assert sum(p.numel() for part in parts for p in part.parameters()) == parameters
