"""A detector of handwritten digits, converted: Spiking-YOLO's experiment at a small size.

``python -m rheobase.experiments.detection --weights FILE`` trains a small Tiny-YOLO on canvases of
several digits (MNIST, composed anew for every epoch) unless FILE holds it already, converts it, and
prints a table in Markdown: mean average precision against the number of steps, thresholds of
channels (`spiking_yolo`) beside those of layers, which Kim et al. 2020 compare, arXiv 1903.06530.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from rheobase._paths import replacing
from rheobase._weights import read_tensors
from rheobase.convert import ConvertedNetwork, convert
from rheobase.data import MNIST, CompositeDigits, ImageDataset, MNISTSample, composite_digits
from rheobase.models.tiny_yolo import (
    Detections,
    TinyYolo,
    TinyYoloConfig,
    box_overlap,
    detect,
    place_boxes,
)

__all__ = ["average_precision", "precision_curve", "train_detector", "yolo_loss"]

_DIGITS: dict[str, type[MNIST | MNISTSample]] = {"mnist": MNIST, "mnist_sample": MNISTSample}
_COORDINATES, _NO_OBJECT = 5.0, 0.5  # weights of YOLO's loss
_NEAR = 0.6  # a box that overlaps a digit so far, without being the one to find it, is let be


def yolo_loss(out: Tensor, boxes: Tensor, labels: Tensor, config: TinyYoloConfig) -> Tensor:
    """YOLO's loss, summed over cells, its mean over images.

    The cell of a digit's centre is to find it, by the anchor of the most similar shape: its box is
    compared with the digit's, its object score with their overlap, its class with the digit.
    Everywhere else the object score is to be 0. Squares, and cross entropy of classes; coordinates
    weigh 5, empty cells 0.5.

    Source: Redmon et al. 2016, arXiv 1506.02640, eq. 3, with the anchors of Redmon & Farhadi 2017.

    Args:
        out: the network's output.
        boxes: ``[N, most, 4]`` in pixels.
        labels: ``[N, most]``, -1 where there is none.
        config: the network's.
    """
    placed, objects, classes = place_boxes(out, config)
    image, number = (labels >= 0).nonzero().unbind(1)
    wanted, label = boxes[image, number], labels[image, number]
    cell = _cell(wanted, config, out.shape[2], out.shape[3])
    mine = placed[image, cell]
    overlap = box_overlap(mine, wanted)
    expected = torch.zeros_like(objects)
    expected[image, cell] = overlap.detach()
    weight = torch.full_like(objects, _NO_OBJECT)
    with torch.no_grad():
        most = box_overlap(placed[:, :, None], boxes[:, None]).amax(2)
        weight[most > _NEAR] = 0.0
        weight[image, cell] = 1.0
    at = _COORDINATES * (_coordinates(mine) - _coordinates(wanted)).square().sum()
    is_there = (weight * (objects.sigmoid() - expected).square()).sum()
    what = F.cross_entropy(classes[image, cell], label, reduction="sum")
    return (at + is_there + what) / len(out)


def _cell(boxes: Tensor, config: TinyYoloConfig, height: int, width: int) -> Tensor:
    """Which of the network's ``A * H * W`` boxes has to find each of ``[K, 4]``."""
    size = boxes[:, 2:] - boxes[:, :2]
    anchors = boxes.new_tensor(config.anchors)
    shared = torch.minimum(size[:, None], anchors).prod(-1)
    alike = shared / (size.prod(-1)[:, None] + anchors.prod(-1) - shared)
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / (2 * TinyYolo.stride)).long().unbind(1)
    return (alike.argmax(1) * height + y.clamp(max=height - 1)) * width + x.clamp(max=width - 1)


def _coordinates(boxes: Tensor) -> Tensor:
    """Centres in cells, and logarithms of sizes."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / (2 * TinyYolo.stride)
    return torch.cat([centre, (boxes[:, 2:] - boxes[:, :2]).log()], 1)


def train_detector(
    digits: ImageDataset,
    config: TinyYoloConfig | None = None,
    *,
    epochs: int = 20,
    canvases: int = 6000,
    batch_size: int = 32,
    lr: float = 3e-3,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> TinyYolo:
    """A detector, trained on canvases that are composed anew for every epoch.

    Args:
        digits: training digits.
        config: of the network.
        epochs: how many.
        canvases: of an epoch.
        batch_size: canvases of a step.
        lr: the largest learning rate of AdamW, up and down in one cycle.
        seed: of weights, canvases and their order.
        report: called with a line after every epoch.
    """
    config = config or TinyYoloConfig()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = TinyYolo(config).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    total = epochs * -(-canvases // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=total)
    for epoch in range(epochs):
        made = composite_digits(digits, canvases, seed=seed + epoch)
        losses = []
        for chosen in torch.split(torch.randperm(canvases, generator=generator), batch_size):
            out = net(made.images[chosen])
            loss = yolo_loss(out, made.boxes[chosen], made.labels[chosen], config)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        report(f"epoch {epoch + 1} of {epochs}: loss {sum(losses) / len(losses):.3f}")
    return net.eval()


def average_precision(
    found: Sequence[Detections], truth: CompositeDigits, overlap: float = 0.5
) -> float:
    """Mean over classes of the area under precision against recall, in percent.

    Detections of a class are taken from the surest on, over all images; one is right if the digit
    of its class that it overlaps most it overlaps by ``overlap``, and none before it has found that
    digit (PASCAL VOC from 2010 on: Everingham et al. 2015, IJCV 111).

    Args:
        found: of each image.
        truth: the images' boxes and labels.
        overlap: least intersection over union.
    """
    areas = []
    for label in torch.unique(truth.labels[truth.labels >= 0]).tolist():
        marks = [_marks(one, b[k == label], label, overlap)
                 for one, b, k in zip(found, truth.boxes, truth.labels, strict=True)]  # fmt: skip
        scores, right = (torch.cat(column) for column in zip(*marks, strict=True))
        right = right[scores.argsort(descending=True, stable=True)].double()
        precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
        best = precision.flip(0).cummax(0).values.flip(0)  # at that recall or beyond
        areas.append(float((best * right).sum()) / int((truth.labels == label).sum()))
    return 100.0 * sum(areas) / len(areas)


def _marks(found: Detections, boxes: Tensor, label: int, overlap: float) -> tuple[Tensor, Tensor]:
    """Scores of one image's detections of a class, the surest first, and which are right."""
    of_class = found.labels == label
    free = torch.ones(len(boxes), dtype=torch.bool)
    right = []
    for box in found.boxes[of_class] if len(boxes) else ():
        near, best = box_overlap(box, boxes).max(0)
        right.append(bool(near >= overlap) and bool(free[best]))
        free[best] &= not right[-1]
    right += [False] * (int(of_class.sum()) - len(right))
    return found.scores[of_class], torch.tensor(right, dtype=torch.bool)


@torch.no_grad()
def precision_curve(
    snn: ConvertedNetwork,
    config: TinyYoloConfig,
    truth: CompositeDigits,
    steps: Sequence[int],
    batch_size: int = 25,
) -> list[float]:
    """Mean average precision of the mean output after each of ``steps`` steps, in percent."""
    found: list[list[Detections]] = [[] for _ in steps]
    for images in torch.split(truth.images, batch_size):
        sums = snn(images, max(steps)).cumsum(0)
        for row, count in zip(found, steps, strict=True):
            row += detect(sums[count - 1] / count, config)
    return [average_precision(row, truth) for row in found]


def _trained(weights: Path, digits: type[MNIST | MNISTSample]) -> TinyYolo:
    """The detector in a file, which is made if there is none."""
    if not weights.exists():
        with replacing(weights) as unfinished:
            save_file(train_detector(digits(train=True)).state_dict(), unfinished)
    net = TinyYolo(TinyYoloConfig())
    net.load_state_dict(read_tensors(weights))
    return net.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="of the detector, safetensors")
    parser.add_argument("--data", choices=_DIGITS, default="mnist")
    parser.add_argument("--T", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--test", type=int, default=300, help="canvases of test digits")
    options = parser.parse_args(arguments)
    digits = _DIGITS[options.data]
    ann = _trained(options.weights, digits)
    test = composite_digits(digits(train=False), options.test, seed=1000)
    with torch.no_grad():
        found = [one for x in torch.split(test.images, 50) for one in detect(ann(x), ann.config)]
    print(f"ANN: {average_precision(found, test):.2f} % of {options.test} canvases")
    print("| thresholds | " + " | ".join(f"T = {t}" for t in options.T) + " |")
    print("|---" * (len(options.T) + 1) + "|")
    calibration = composite_digits(digits(train=True), 200, seed=2000).images
    for each in ("channel", "layer"):
        snn = convert(ann, calibration, recipe="spiking_yolo", T=max(options.T), granularity=each)
        curve = precision_curve(snn, ann.config, test, options.T)
        print(
            f"| of a {each} | " + " | ".join(f"{value:.2f}" for value in curve) + " |", flush=True
        )


if __name__ == "__main__":
    main()
