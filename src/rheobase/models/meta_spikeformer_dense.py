"""Meta-SpikeFormer for dense prediction: segmentation, and what a detector has of neurons.

Yao et al. 2024, arXiv 2404.03663; released code: BICLab/Spike-Driven-Transformer-V2, folders
segmentation and detection of earlier commits. For segmentation the membranes of each level are
averaged over T, so pyramid and head work on one step; for detection they keep their steps, and what
the heads give is averaged. `SegmentationHeads` and `DetectionHeads` are all that is behind the
backbone, and are held to the released code by its weights; `MetaSegmenter` is a whole network. The
search for boxes around the detection heads (anchors, suppression of overlaps, regions cut out of
the levels) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.models._inputs import as_sequence
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn
from rheobase.models.meta_spikeformer_heads import (
    BoxHead,
    MaskHead,
    RegionHead,
    SegmentationHead,
    SpikePyramid,
    resized,
)
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spike_driven_transformer_v2 import (
    MetaSpikeFormer,
    MetaSpikeFormerConfig,
    meta_spikeformer_neuron,
)

__all__ = [
    "FAMILY",
    "PRESETS",
    "BoxHead",
    "DetectionHeads",
    "HeadsConfig",
    "MaskHead",
    "MetaSegmenter",
    "MetaSegmenterConfig",
    "RegionHead",
    "SegmentationHead",
    "SegmentationHeads",
    "SpikePyramid",
]


@dataclass(frozen=True)
class HeadsConfig:
    """What a network has behind its backbone.

    Args:
        channels: of the backbone's levels, fine to coarse, each half as large as the one before.
        width: channels of the pyramid and of the heads.
        num_classes: of pixels, or of things.
        anchors: boxes tried at a place by a detector; 0: a segmenter.
        hidden: neurons in each layer of a detector's box head.
        depth: convolutions of a detector's mask head.
    """

    channels: tuple[int, ...]
    width: int
    num_classes: int
    anchors: int = 0
    hidden: int = 0
    depth: int = 0


class SegmentationHeads(nn.Module):
    """Pyramid and head of a segmenter.

    Args:
        config: sizes.
        make_neuron: makes each neuron.
    """

    def __init__(self, config: HeadsConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.config = config
        count, width = len(config.channels), config.width
        self.pyramid = SpikePyramid(config.channels, width, make_neuron)
        self.head = SegmentationHead(width, count, config.num_classes, make_neuron)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Levels in one tensor, channel after channel, to logits ``[N, classes, H, W]``."""
        levels = _levels_of(x, self.config.channels)
        return [self.head(self.pyramid(levels)).mean(0)]


class DetectionHeads(nn.Module):
    """Pyramid and heads of a detector.

    Args:
        config: sizes.
        make_neuron: makes each neuron.
    """

    def __init__(self, config: HeadsConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.config = config
        width, classes = config.width, config.num_classes
        self.pyramid = SpikePyramid(config.channels, width, make_neuron)
        self.regions = RegionHead(width, config.anchors, make_neuron)
        self.boxes = BoxHead(width, 7, config.hidden, classes, make_neuron)
        self.masks = MaskHead(width, config.depth, classes, make_neuron)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Levels in one tensor, channel after channel, to everything that the heads give.

        The box head sees two fixed regions of 7x7 pixels of the finest level, the mask head two of
        14x14, in the place of those that a search would find.

        Returns:
            scores and shifts of every level and of one more, then those of the boxes, each with
            its T steps; last the masks' logits, averaged over T.
        """
        levels = self.pyramid(_levels_of(x, self.config.channels))
        levels.append(levels[-1][..., ::2, ::2])  # a max pool of one pixel
        found = [output for pair in self.regions(levels) for output in pair]
        finest = levels[0][:, 0]
        boxes = torch.stack([finest[..., i : i + 7, i : i + 7] for i in (2, 10)], 1)
        masks = torch.stack([finest[..., i : i + 14, i : i + 14] for i in (2, 16)], 1)
        return [*found, *self.boxes(boxes), self.masks(masks).mean(0)]


def _levels_of(x: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The levels that lie one after another in the channels of ``[T, N, C, H, W]``.

    Of each level after the first every other pixel is taken: it is half as large as the one before.
    """
    levels = torch.split(x, list(channels), 2)
    return [level[..., :: 2**i, :: 2**i] for i, level in enumerate(levels)]


@dataclass(frozen=True)
class MetaSegmenterConfig:
    """One network for segmentation.

    Args:
        backbone: its sizes; its classes are not used.
        width: channels of the pyramid and of the head.
        num_classes: kinds of pixels.
    """

    backbone: MetaSpikeFormerConfig = field(
        default_factory=lambda: MetaSpikeFormerConfig((64, 128, 256, 360), image_size=512)
    )
    width: int = 128
    num_classes: int = 150


class MetaSegmenter(nn.Module):
    """Meta-SpikeFormer with pyramid and head for semantic segmentation.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> backbone = MetaSpikeFormerConfig((8, 8, 16, 16), heads=2, T=2)
    >>> net = MetaSegmenter(MetaSegmenterConfig(backbone, width=8, num_classes=5))
    >>> net(torch.rand(2, 3, 32, 48)).shape
    torch.Size([1, 2, 5, 32, 48])
    """

    def __init__(self, config: MetaSegmenterConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make = make_neuron or meta_spikeformer_neuron()
        whole = MetaSpikeFormer(config.backbone, make)
        self.config = config
        self.T = config.backbone.T
        self.downs, self.stages = whole.downs, whole.stages
        first, second, _, last = config.backbone.widths
        self.pyramid = SpikePyramid([first // 2, first, second, last], config.width, make)
        self.head = SegmentationHead(config.width, 4, config.num_classes, make)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel, of the one step that is left.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[1, N, num_classes, H, W]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or image size, or an empty input.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.backbone.channels, divisor=16)
        size = x.shape[-2:]
        levels = []
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            levels.append(x.mean(0, keepdim=True))
        del levels[3]  # as large as the last one
        return resized(self.head(self.pyramid(levels)), size)


def _ade20k(widths: tuple[int, int, int, int], width: int) -> MetaSegmenterConfig:
    return MetaSegmenterConfig(MetaSpikeFormerConfig(widths, image_size=512), width)


PRESETS: Mapping[str, MetaSegmenterConfig] = {
    "spike_driven_transformer_v2_15m_ade20k": _ade20k((64, 128, 256, 360), 128),
    "spike_driven_transformer_v2_55m_ade20k": _ade20k((128, 256, 512, 640), 256),
}


_OURS: Replacements = {
    r"^neck\.lateral_convs\.(\d)": r"pyramid.laterals.\1",
    r"^neck\.fpn_convs\.(\d)": r"pyramid.outputs.\1",
    r"^decode_head\.scale_heads\.(\d)\.(\d)\.0$": r"head.scales.\1.units.\2.neuron",
    r"^decode_head\.scale_heads\.(\d)\.(\d)\.1\.0\.conv": r"head.scales.\1.units.\2.conv",
    r"^decode_head\.scale_heads\.(\d)\.(\d)\.1\.0\.bn": r"head.scales.\1.units.\2.norm",
    r"^decode_head\.decode_lif$": "head.neuron",
    r"^decode_head\.conv_seg": "head.head",
    r"^rpn_(conv|cls|reg)": r"regions.\1",
    r"^shared_fcs\.(\d)": r"boxes.layers.\1",
    r"^fc_(cls|reg)": r"boxes.\1",
    r"^convs\.(\d)\.1\.0\.conv": r"masks.convs.\1.layer.0",
    r"^convs\.(\d)": r"masks.convs.\1",
    r"^upsample": "masks.up",
    r"^conv_logits": "masks.mask",
    r"\.cls(?=\.|$)": ".score",
    r"\.reg(?=\.|$)": ".shift",
    r"\.1\.0(\.conv)?(?=\.(weight|bias)$)": ".layer",
    r"^((?!head\.).*)\.0$": r"\1.neuron",
}


def _rename(key: str) -> str:
    return replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> HeadsConfig:
    ours = {_rename(key): value.shape for key, value in weights.items()}
    count = depth_of(ours, "pyramid.laterals")
    channels = tuple(ours[f"pyramid.laterals.{i}.layer.weight"][1] for i in range(count))
    width = ours["pyramid.outputs.0.layer.weight"][0]
    if "head.head.weight" in ours:
        return HeadsConfig(channels, width, ours["head.head.weight"][0])
    what = "a checkpoint of a segmenter's or detector's heads, nor a Meta-SpikeFormer"
    need_layers(weights, what, "rpn_cls.1.0", "shared_fcs.0.1.0", "conv_logits.1.0")
    return HeadsConfig(
        channels,
        width,
        num_classes=ours["masks.mask.layer.weight"][0],
        anchors=ours["regions.score.layer.weight"][0],
        hidden=ours["boxes.layers.0.layer.weight"][0],
        depth=depth_of(ours, "masks.convs"),
    )


def _network(
    config: MetaSegmenterConfig | HeadsConfig, make_neuron: MakeNeuron | None = None
) -> nn.Module:
    """A segmenter, or pyramid and heads alone, which have released weights."""
    if isinstance(config, MetaSegmenterConfig):
        return MetaSegmenter(config, make_neuron)
    heads = DetectionHeads if config.anchors else SegmentationHeads
    return heads(config, make_neuron or meta_spikeformer_neuron())


FAMILY = Family(
    "meta_segmenter",
    network=_network,
    presets=PRESETS,
    neuron=meta_spikeformer_neuron,
    official={
        "spike_driven_transformer_v2": Official(
            _config, _rename, mark="neck.lateral_convs.0.1.0.conv.weight"
        )
    },
)
