"""Pyramid and heads of Meta-SpikeFormer for dense prediction: layers that networks share.

Yao et al. 2024, arXiv 2404.03663; released code: BICLab/Spike-Driven-Transformer-V2, folders
segmentation and detection of earlier commits. Every convolution takes spikes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rheobase.layers import NeuronConvNorm, over_time
from rheobase.models.registry import MakeNeuron

__all__ = ["BoxHead", "MaskHead", "RegionHead", "SegmentationHead", "SpikePyramid", "resized"]


class NeuronThen(nn.Module):
    """``layer(neuron(x))`` on a sequence ``[T, N, ...]``."""

    def __init__(self, neuron: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, ...]`` to membranes."""
        return over_time(self.neuron(x), self.layer)


class SpikePyramid(nn.Module):
    """Feature pyramid: to every level what the coarser ones see is added.

    Args:
        channels: of the levels, fine to coarse.
        width: of all levels of the pyramid.
        make_neuron: makes each neuron.
    """

    def __init__(self, channels: Sequence[int], width: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            NeuronThen(make_neuron(), nn.Conv2d(count, width, 1)) for count in channels
        )
        self.outputs = nn.ModuleList(
            NeuronThen(make_neuron(), nn.Conv2d(width, width, 3, padding=1)) for _ in channels
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels ``[T, N, C, H, W]``, fine to coarse, to as many of one width."""
        found = [lateral(x) for lateral, x in zip(self.laterals, levels, strict=True)]
        for i in range(len(found) - 1, 0, -1):
            finer = found[i - 1]
            coarse = F.interpolate(found[i].flatten(0, 1), size=finer.shape[-2:])
            found[i - 1] = finer + coarse.unflatten(0, finer.shape[:2])  # type: ignore[no-untyped-call]
        return [output(x) for output, x in zip(self.outputs, found, strict=True)]


class Scale(nn.Module):
    """A level brought to the size of the finest: twice as large after every convolution.

    Args:
        width: channels.
        level: how many times it was halved.
        make_neuron: makes each neuron.
    """

    def __init__(self, width: int, level: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.grows = level > 0
        self.units = nn.ModuleList(
            NeuronConvNorm(width, width, make_neuron(), kernel_size=3) for _ in range(max(1, level))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the finest level's size."""
        for unit in self.units:
            x = unit(x)
            if self.grows:
                x = resized(x, (2 * x.shape[-2], 2 * x.shape[-1]))
        return x


class SegmentationHead(nn.Module):
    """Every level brought to the size of the finest, summed, and classified pixel by pixel.

    Args:
        width: channels of the levels.
        levels: how many, each half as large as the one before.
        num_classes: outputs.
        make_neuron: makes each neuron.
    """

    def __init__(self, width: int, levels: int, num_classes: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Scale(width, level, make_neuron) for level in range(levels))
        self.neuron = make_neuron()
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels ``[T, N, C, H, W]``, fine to coarse, to logits ``[T, N, classes, H, W]``."""
        same = [scale(x) for scale, x in zip(self.scales, levels, strict=True)]
        total = same[0]
        for x in same[1:]:
            total = total + resized(x, total.shape[-2:])
        return over_time(self.neuron(total), self.head)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """``[T, N, C, H, W]`` bilinearly to another height and width."""
    y = F.interpolate(x.flatten(0, 1), size=tuple(size), mode="bilinear", align_corners=False)
    return y.unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call,no-any-return]


class RegionHead(nn.Module):
    """Whether there is something at a place, and where: the proposals of Mask R-CNN.

    Args:
        width: channels of the levels.
        anchors: boxes tried at a place.
        make_neuron: makes each neuron.
    """

    def __init__(self, width: int, anchors: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.conv = NeuronThen(make_neuron(), nn.Conv2d(width, width, 3, padding=1))
        self.score = NeuronThen(make_neuron(), nn.Conv2d(width, anchors, 1))
        self.shift = NeuronThen(make_neuron(), nn.Conv2d(width, 4 * anchors, 1))

    def forward(self, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Levels ``[T, N, C, H, W]`` to scores ``[..., anchors, H, W]`` and shifts, four times as
        many; every level anew. Their means over T are the proposals."""
        found = [self.conv(x) for x in levels]
        return [(self.score(x), self.shift(x)) for x in found]


class BoxHead(nn.Module):
    """What is in a region, and its box: two layers of neurons, then two readouts.

    Args:
        width: channels of a region.
        side: pixels on a side of a region.
        hidden: neurons of each layer.
        num_classes: without the background.
        make_neuron: makes each neuron.
    """

    def __init__(
        self, width: int, side: int, hidden: int, num_classes: int, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            NeuronThen(make_neuron(), nn.Linear(width * side * side, hidden)),
            NeuronThen(make_neuron(), nn.Linear(hidden, hidden)),
        )
        self.score = nn.Linear(hidden, num_classes + 1)
        self.shift = nn.Linear(hidden, 4 * num_classes)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions ``[T, R, C, side, side]`` to scores ``[T, R, classes + 1]`` and shifts."""
        x = self.layers(regions.flatten(2))
        return self.score(x), self.shift(x)


class MaskHead(nn.Module):
    """The shape of what is in a region, in twice its resolution.

    Args:
        width: channels of a region.
        depth: convolutions.
        num_classes: without the background.
        make_neuron: makes each neuron.
    """

    def __init__(self, width: int, depth: int, num_classes: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        # The released convolutions are followed by a ReLU, before the next layer's neurons.
        self.convs = nn.Sequential(
            *(
                NeuronThen(
                    make_neuron(),
                    nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
                )
                for _ in range(depth)
            )
        )
        self.up = NeuronThen(make_neuron(), nn.ConvTranspose2d(width, width, 2, stride=2))
        self.mask = NeuronThen(make_neuron(), nn.Conv2d(width, num_classes, 1))

    def forward(self, regions: Tensor) -> Tensor:
        """Regions ``[T, R, C, side, side]`` to logits ``[T, R, classes, 2 side, 2 side]``."""
        logits: Tensor = self.mask(self.up(self.convs(regions)))
        return logits
