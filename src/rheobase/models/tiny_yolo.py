"""A small Tiny-YOLO, to be converted: boxes and classes in one pass, leaky ReLUs, no pooling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Detections", "TinyYolo", "TinyYoloConfig", "box_overlap", "detect", "place_boxes"]

_SLOPE = 0.1  # of the leaky ReLU
_LARGEST = 4.0  # exp of more would be a box of 50 anchors


@dataclass(frozen=True)
class TinyYoloConfig:
    """What the detector looks like.

    Attributes:
        widths: channels of the five 3 x 3 convolutions, the first three of which halve the image.
        anchors: width and height of the boxes that a cell starts from, in pixels.
        num_classes: how many.
        channels: of the image.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    anchors: tuple[tuple[float, float], ...] = ((11.0, 17.0), (18.0, 25.0))
    num_classes: int = 10
    channels: int = 1


class TinyYolo(nn.Module):
    """Convolutions with batch norm and leaky ReLU, and one that predicts boxes in every cell.

    Source: Redmon & Farhadi 2017 (YOLO9000), arXiv 1612.08242, Tiny YOLO with anchors, narrow for
    small images; strided convolutions in the place of max pooling as Kim et al. 2020
    (Spiking-YOLO), arXiv 1903.06530, have them.

    >>> net = TinyYolo(TinyYoloConfig(widths=(4, 4, 4, 4, 4))).eval()
    >>> net(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 30, 8, 8])
    """

    stride = 8
    """Pixels of the side of a cell."""

    def __init__(self, config: TinyYoloConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        inputs = config.channels
        for number, width in enumerate(config.widths):
            stride = 2 if number < 3 else 1
            layers.append(nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.LeakyReLU(_SLOPE)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, len(config.anchors) * (5 + config.num_classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, anchors * (5 + classes), H / 8, W / 8]``, read by `detect`."""
        y: Tensor = self.head(self.features(x))
        return y


@dataclass(frozen=True)
class Detections:
    """What was found on one image, the surest first.

    Attributes:
        boxes: ``[K, 4]``: left, top, right, bottom in pixels.
        labels: ``[K]``.
        scores: ``[K]``: probability of an object, times that of its class.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def place_boxes(out: Tensor, config: TinyYoloConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The network's output, cell by cell.

    A box of cell (i, j) has its centre at sigma(t) in the cell and the size of its anchor times
    exp(t) (YOLO9000, section 2).

    Args:
        out: ``[N, anchors * (5 + classes), H, W]``.
        config: the network's.

    Returns:
        boxes ``[N, A * H * W, 4]`` in pixels, the logit of an object ``[N, A * H * W]``, and those
        of classes ``[N, A * H * W, classes]``.
    """
    count, height, width = out.shape[0], out.shape[2], out.shape[3]
    cells = out.view(count, len(config.anchors), -1, height, width).permute(0, 1, 3, 4, 2)
    y, x = torch.meshgrid(
        torch.arange(height, device=out.device), torch.arange(width, device=out.device),
        indexing="ij",
    )  # fmt: skip
    corner = torch.stack([x, y], -1)
    anchors = out.new_tensor(config.anchors).view(1, -1, 1, 1, 2)
    centre = (corner + cells[..., :2].sigmoid()) * TinyYolo.stride
    half = anchors * cells[..., 2:4].clamp(max=_LARGEST).exp() / 2.0
    boxes = torch.cat([centre - half, centre + half], -1)
    return boxes.flatten(1, 3), cells[..., 4].flatten(1), cells[..., 5:].flatten(1, 3)


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes ``[..., 4]``, which broadcast.

    >>> box_overlap(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0]))
    tensor(0.3333)
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0.0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-9)


@torch.no_grad()
def detect(
    out: Tensor, config: TinyYoloConfig, *, at_least: float = 0.01, overlap: float = 0.45
) -> list[Detections]:
    """Boxes of each image: of those of one class that overlap, the surest alone.

    Args:
        out: the network's output, ``[N, anchors * (5 + classes), H, W]``.
        config: the network's.
        at_least: score of a box that counts.
        overlap: intersection over union beyond which two boxes are the same object.
    """
    boxes, objects, classes = place_boxes(out, config)
    likely, labels = classes.softmax(-1).max(-1)
    scores = objects.sigmoid() * likely
    found = []
    for box, label, score in zip(boxes, labels, scores, strict=True):
        order = score.argsort(descending=True)
        order = order[score[order] >= at_least]
        box, label, score = box[order], label[order], score[order]
        same = (box_overlap(box[:, None], box[None]) > overlap) & (label[:, None] == label[None])
        keep = torch.ones(len(order), dtype=torch.bool, device=out.device)
        for number in range(len(order)):
            if keep[number]:
                keep[number + 1 :] &= ~same[number, number + 1 :]
        found.append(Detections(box[keep], label[keep], score[keep]))
    return found
