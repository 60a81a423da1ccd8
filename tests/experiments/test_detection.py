"""A detector of digits: its loss, its score, and its conversion by Spiking-YOLO's recipe."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rheobase.convert import convert
from rheobase.data import CompositeDigits, MNISTSample, composite_digits
from rheobase.experiments.detection import (
    average_precision,
    main,
    train_detector,
    yolo_loss,
)
from rheobase.models.tiny_yolo import Detections, TinyYolo, TinyYoloConfig, detect

CONFIG = TinyYoloConfig()


def test_what_has_no_loss_finds_every_digit():
    truth = composite_digits(MNISTSample(train=False), 6, seed=5)
    torch.manual_seed(0)
    out = torch.randn(6, 30, 8, 8, requires_grad=True)  # the output itself is trained
    optimizer = torch.optim.Adam([out], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = yolo_loss(out, truth.boxes, truth.labels, CONFIG)
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    found = detect(out, CONFIG)
    assert average_precision(found, truth, overlap=0.95) == 100.0
    sure = [one.boxes[one.scores > 0.5] for one in found]
    assert [len(one) for one in sure] == (truth.labels >= 0).sum(1).tolist()


def test_loss_of_one_digit_by_hand():
    # A box of exactly the first anchor in the middle of cell (1, 2), as class 3; all t are 0.
    wide, high = CONFIG.anchors[0]
    box = torch.tensor([20.0 - wide / 2, 12.0 - high / 2, 20.0 + wide / 2, 12.0 + high / 2])
    loss = yolo_loss(torch.zeros(1, 30, 8, 8), box.view(1, 1, 4), torch.tensor([[3]]), CONFIG)
    # Its own score of 1/2 should be 1; 127 others of 1/2 should be 0; ten classes are alike.
    expected = 0.25 + 127 * 0.5 * 0.25 + torch.tensor(10.0).log()
    torch.testing.assert_close(loss, expected)


def boxes_of(*lefts: float) -> Tensor:
    return torch.tensor([[left, 0.0, left + 10.0, 10.0] for left in lefts])


def test_average_precision_by_hand():
    truth = CompositeDigits(
        torch.zeros(2, 1, 64, 64),
        torch.stack([boxes_of(0.0, 30.0), boxes_of(0.0, 0.0)]),
        torch.tensor([[1, 7], [1, -1]]),
    )
    found = [
        # right; the same digit again: wrong; right of class 7.
        Detections(boxes_of(1, 2, 33), torch.tensor([1, 1, 7]), torch.tensor([0.9, 0.8, 0.3])),
        # not near; right.
        Detections(boxes_of(40, 3), torch.tensor([7, 1]), torch.tensor([0.7, 0.2])),
    ]
    # Class 1: right, wrong, right of two digits: 1/2 * 1 + 1/2 * 2/3. Class 7: wrong, right of one.
    expected = 100.0 * (0.5 + 1.0 / 3.0 + 0.5) / 2.0
    assert average_precision(found, truth) == pytest.approx(expected)
    nothing = [Detections(boxes_of(), torch.zeros(0), torch.zeros(0))] * 2
    nothing = [Detections(torch.zeros(0, 4), one.labels, one.scores) for one in nothing]
    assert average_precision(nothing, truth) == 0.0


@pytest.fixture(scope="module")
def trained() -> tuple[TinyYolo, list[str]]:
    lines: list[str] = []
    net = train_detector(MNISTSample(), epochs=3, canvases=256, report=lines.append)
    return net, lines


def test_a_detector_learns_and_converts(trained):
    net, lines = trained
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert losses[-1] < 0.5 * losses[0]
    images = composite_digits(MNISTSample(), 24, seed=9).images
    snn = convert(net, images, recipe="spiking_yolo", T=256)
    became = {one.became for one in snn.report().layers}
    assert became == {"ImbalancedSignedIF"}
    with torch.no_grad():
        expected, sums = net(images), snn(images).cumsum(0)
    errors = [(sums[t - 1] / t - expected).norm() / expected.norm() for t in (16, 64, 256)]
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]
    assert errors[2] < 0.05


def test_the_command_prints_a_table(trained, tmp_path, capsys):
    weights = tmp_path / "detector.safetensors"
    save_file(trained[0].state_dict(), weights)
    main(["--weights", str(weights), "--data", "mnist_sample", "--T", "2", "8", "--test", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ANN: ")
    assert lines[1] == "| thresholds | T = 2 | T = 8 |"
    assert [line.split(" | ")[0] for line in lines[3:]] == ["| of a channel", "| of a layer"]
