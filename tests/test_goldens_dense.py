"""Pyramid and heads of Meta-SpikeFormer for dense prediction, held to the released code.

Takes every ``models/sdtv2_*_head*.npz`` of ``$RHEOBASE_GOLDENS``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.measure import firing_rates
from rheobase.models import create_model
from rheobase.models.meta_spikeformer_dense import (
    BoxHead,
    MaskHead,
    RegionHead,
    SegmentationHead,
    SpikePyramid,
)
from rheobase.models.spike_driven_transformer_v2 import meta_spikeformer_neuron

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "models"
MAKE = meta_spikeformer_neuron()

# Official names to ours, in turn.
NAMES = (
    (r"^neck\.lateral_convs\.(\d)\.0$", r"pyramid.laterals.\1.neuron"),
    (r"^neck\.fpn_convs\.(\d)\.0$", r"pyramid.outputs.\1.neuron"),
    (r"^neck\.lateral_convs\.(\d)\.1\.0\.conv", r"pyramid.laterals.\1.layer"),
    (r"^neck\.fpn_convs\.(\d)\.1\.0\.conv", r"pyramid.outputs.\1.layer"),
    (r"^decode_head\.scale_heads\.(\d)\.(\d)\.0$", r"head.scales.\1.units.\2.neuron"),
    (r"^decode_head\.scale_heads\.(\d)\.(\d)\.1\.0\.conv", r"head.scales.\1.units.\2.conv"),
    (r"^decode_head\.scale_heads\.(\d)\.(\d)\.1\.0\.bn", r"head.scales.\1.units.\2.norm"),
    (r"^decode_head\.decode_lif$", "head.neuron"),
    (r"^decode_head\.conv_seg", "head.head"),
    (r"^rpn_(conv|cls|reg)\.0$", r"regions.\1.neuron"),
    (r"^rpn_(conv|cls|reg)\.1\.0", r"regions.\1.layer"),
    (r"^shared_fcs\.(\d)\.0$", r"boxes.layers.\1.neuron"),
    (r"^shared_fcs\.(\d)\.1\.0", r"boxes.layers.\1.layer"),
    (r"^fc_(cls|reg)", r"boxes.\1"),
    (r"^convs\.(\d)\.0$", r"masks.convs.\1.neuron"),
    (r"^convs\.(\d)\.1\.0\.conv", r"masks.convs.\1.layer.0"),
    (r"^(upsample|conv_logits)\.0$", r"masks.\1.neuron"),
    (r"^(upsample|conv_logits)\.1\.0", r"masks.\1.layer"),
    (r"\.cls\b", ".score"),
    (r"\.reg\b", ".shift"),
    (r"\.upsample\b", ".up"),
    (r"\.conv_logits\b", ".mask"),
)


def ours(name: str) -> str:
    for theirs, our in NAMES:
        name = re.sub(theirs, our, name)
    return name


def levels_of(x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    """The input's channels, cut into levels, each half as large as the one before."""
    levels, start = [], 0
    for i in range(4):
        count = weights[f"pyramid.laterals.{i}.layer.weight"].shape[1]
        levels.append(x[:, :, start : start + count, :: 2**i, :: 2**i])
        start += count
    return levels


class Segmenting(nn.Module):
    """Pyramid and head alone."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        classes, width = weights["head.head.weight"].shape[:2]
        channels = [weights[f"pyramid.laterals.{i}.layer.weight"].shape[1] for i in range(4)]
        self.pyramid = SpikePyramid(channels, width, MAKE)
        self.head = SegmentationHead(width, 4, classes, MAKE)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = levels_of(x, self.state_dict())
        return [self.head(self.pyramid(levels)).mean(0)]


class Detecting(nn.Module):
    """Pyramid and heads, at the regions that the golden names."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        channels = [weights[f"pyramid.laterals.{i}.layer.weight"].shape[1] for i in range(4)]
        anchors, width = weights["regions.score.layer.weight"].shape[:2]
        hidden = weights["boxes.layers.0.layer.weight"].shape[0]
        classes = weights["masks.mask.layer.weight"].shape[0]
        depth = sum(name.endswith("layer.0.weight") for name in weights)
        self.pyramid = SpikePyramid(channels, width, MAKE)
        self.regions = RegionHead(width, anchors, MAKE)
        self.boxes = BoxHead(width, 7, hidden, classes, MAKE)
        self.masks = MaskHead(width, depth, classes, MAKE)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = self.pyramid(levels_of(x, self.state_dict()))
        levels.append(levels[-1][..., ::2, ::2])  # a max pool of one pixel
        found = [output for pair in self.regions(levels) for output in pair]
        finest = levels[0][:, 0]
        boxes = torch.stack([finest[..., i : i + 7, i : i + 7] for i in (2, 10)], 1)
        masks = torch.stack([finest[..., i : i + 14, i : i + 14] for i in (2, 16)], 1)
        return [*found, *self.boxes(boxes), self.masks(masks).mean(0)]


@pytest.mark.golden
@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("sdtv2_*_head*.npz")), ids=lambda path: path.stem
)
def test_dense_heads_of_the_released_code(path: Path) -> None:
    with np.load(path) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files if file[key].ndim}
        golden |= {key: torch.tensor(file[key].item()) for key in file.files
                   if key.startswith("sd/") and not file[key].ndim}  # fmt: skip
        rates = json.loads(str(file["rates"]))
    weights = {ours(k.removeprefix("sd/")): v for k, v in golden.items() if k.startswith("sd/")}
    net = (Detecting if "masks.mask.layer.weight" in weights else Segmenting)(weights)
    net.load_state_dict(weights)
    net.double().eval()
    x = golden["input"].double().requires_grad_()
    found = net(x)
    names = [f"output/{i}" for i in range(len(found))] if "output/0" in golden else ["output"]
    for output, name in zip(found, names, strict=True):
        torch.testing.assert_close(output, golden[name], rtol=1e-9, atol=1e-11)
    assert {ours(name) for name in rates} <= dict(net.named_modules()).keys()
    counted = firing_rates(net, x.detach())
    for name, rate in rates.items():
        if "rpn" not in name:  # those average over the levels in their own way
            assert counted[ours(name)] == pytest.approx(rate, abs=1e-12), name
    if "grad_vector" in golden:
        (found[0] * golden["grad_vector"]).sum().backward()
        torch.testing.assert_close(x.grad, golden["grad/input"], rtol=1e-6, atol=1e-12)


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
