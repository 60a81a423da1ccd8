"""STNet: what its goldens do not hold (tests/test_goldens_models.py has those)."""

import math

import numpy as np
import pytest
import torch

import rheobase
from rheobase.data import Events, event_slices
from rheobase.models import create_model
from rheobase.models.stnet_parts import (
    DynamicThreshold,
    Found,
    SpikingBranch,
    SpikingBranchConfig,
)
from rheobase.models.stnet_tracking import Tracking, event_images, track

SMALL = {
    "T": 2,
    "template_size": 59,
    "search_size": 171,
    "transformer_size": 152,
    "widths": (2, 4, 16),
    "dim": 6,
    "heads": (1, 2),
}


def small():
    torch.manual_seed(0)
    return create_model("stnet", **SMALL).eval()


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters_are_those_of_the_released_modules():
    """Without those that they never use: convolutions of 1x1, a threshold's weights, a norm."""
    with torch.device("meta"):
        net = create_model("stnet")
    unused_fusion, unused_threshold = 512 * 256 + 256, 2
    spiking = count(net.spiking, net.crop, net.crop_norm)
    assert spiking == 12_714_626 - unused_fusion - unused_threshold
    assert count(net.fusion) == 275_218 - 1024 * 256 - 2 * 256
    assert count(net.transformer) == 1_639_647 - 2 * 96


def test_the_threshold_is_that_of_the_equation():
    torch.manual_seed(1)
    features = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    x = (features * features.mean((2, 3), keepdim=True)).mean(1)
    grey = x.mean(0)
    grey = (grey - grey.min()) / (grey.max() - grey.min()) * 255
    shares = np.histogram(grey.flatten().numpy(), bins=256, range=(0, 255))[0] / 30
    entropy = sum(-s * math.log(s + 1e-8) for s in shares) / (shares > 0).sum()
    expected = 0.3 * (x.sigmoid().mean() + 10 * entropy)
    threshold = DynamicThreshold()
    torch.testing.assert_close(threshold(features, 0.3), expected)
    assert threshold(None, 0.3) == 0.3
    assert torch.isfinite(threshold(torch.ones(1, 2, 3, 3), 0.3))  # no contrast at all


def test_membranes_go_on_from_frame_to_frame():
    net = SpikingBranch(SpikingBranchConfig((4, 8, 16))).double().eval()
    x = torch.rand(5, 1, 6, 59, 59, dtype=torch.float64) * 3
    _, after = net.frame(x[:3])
    second, end = net.frame(x[3:], state=after)
    _, at_once = net.frame(x)
    for ours, theirs in zip(end, at_once, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(second, net(x[3:]))
    assert net.neurons[0].v_threshold == 0.3 and net.neurons[0].carried is None
    with pytest.raises(ValueError, match="not causal"), rheobase.streaming(net):
        pass


def test_training_reaches_every_parameter():
    net = small().train()
    crops = (torch.rand(2, 2, 6, side, side) * 255 for side in (59, 171))
    found = net(*crops)
    (found.score.sum() + found.centre.sum() + found.box.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def moving_square(frames=4, shape=(90, 120), speed=3):
    """Events of a square that goes right; each frame lasts 1000 microseconds."""
    rng = np.random.default_rng(0)
    parts = []
    for t in range(0, frames * 1000, 10):
        left = 30 + speed * t // 1000
        x, y = rng.integers(left, left + 20, 8), rng.integers(40, 60, 8)
        parts.append(np.stack([np.full(8, t), x, y, rng.integers(0, 2, 8)]))
    parts.append([[frames * 1000 - 1], [0], [0], [1]])
    return Events(*np.concatenate(parts, 1).astype(np.int64))


def test_a_recording_becomes_frames():
    events = moving_square()
    frames = list(event_images(events, 1000, shape=(90, 120)))
    assert len(frames) == 4 and frames[0].shape == (5, 6, 90, 120)
    assert set(frames[0].unique().tolist()) == {0.0, 255.0}
    counts = event_slices(events, 1000, 1000, 5, shape=(90, 120))
    assert counts.sum() == len(events.between(1000, 2000))
    assert torch.equal(frames[1][:, 0] > 0, counts[:, 1] > 0)  # the first three are brighter
    assert torch.equal(frames[1][:, 5] > 0, counts[:, 0] > 0)
    with pytest.raises(ValueError, match="less than a frame"):
        next(event_images(events, 10_000, shape=(90, 120)))
    with pytest.raises(ValueError, match="outside"):
        next(event_images(events, 1000, shape=(40, 40)))
    with pytest.raises(ValueError, match="too few"):
        event_slices(events, 0, 3, 5, shape=(90, 120))


def test_an_untrained_network_runs_on_a_recording():
    frames = event_images(moving_square(), 1000, shape=(90, 120), slices=2)
    boxes = track(small(), frames, (30.0, 40.0, 20.0, 20.0))
    assert boxes.shape == (4, 4) and boxes[0].tolist() == [30.0, 40.0, 20.0, 20.0]
    assert torch.isfinite(boxes).all() and (boxes[:, 2:] >= 10).all()


class Oracle:
    """In the network's place: finds the brightest pixel's square in the crop."""

    def __init__(self, net):
        self.config, self.parameters, self.eval = net.config, net.parameters, net.eval
        self.crops = []

    def remember(self, template):
        self.crops.append(template)

    def find(self, template, crop, state):
        self.crops.append(crop)
        side, scores = self.config.search_size, self.config.scores**2
        at = int(crop[0, 0, 0].argmax())
        row, column = divmod(at, side)
        box = torch.tensor([column - 20.0, row - 20.0, column + 20.0, row + 20.0])
        score = torch.full((1, scores), -9.0)
        score[0, scores // 2] = 9.0
        return Found(score, score, box.expand(1, scores, 4)), state


def test_boxes_of_the_crop_become_those_of_the_frame():
    """The crop's centre is the object's; what is found there moves it by as much."""
    oracle = Oracle(small())
    frames = torch.zeros(3, 2, 6, 90, 120)
    places = [(50, 60), (53, 66), (49, 75)]
    for frame, (row, column) in zip(frames, places, strict=True):
        frame[:, :, row, column] = 255.0
    box = (60 - 9.5, 50 - 9.5, 20.0, 20.0)
    boxes = track(oracle, frames, box, Tracking(rate=0.0))
    centres = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
    wanted = torch.tensor([(x, y) for y, x in places], dtype=torch.float64)
    torch.testing.assert_close(centres, wanted, rtol=0, atol=0.5)
    assert boxes[:, 2:].unique().tolist() == [20.0]  # rate 0: the size stays
    template = oracle.crops[0][0, 0, 0]
    assert template.argmax() == 29 * 59 + 29  # in the middle of 59 x 59


def test_what_does_not_fit_is_refused():
    net = small()
    template, search = torch.rand(2, 1, 6, 59, 59), torch.rand(2, 1, 6, 171, 171)
    with pytest.raises(ValueError, match=r"template is \[2, N, 6, 59, 59\].*got \[2, 1, 6, 171"):
        net(search, search)
    with pytest.raises(ValueError, match=r"search crop is .*got \[3"):
        net(template, torch.rand(3, 1, 6, 171, 171))
    with pytest.raises(TypeError, match=r"call x\.float"):
        net(template.long(), search)
    with pytest.raises(ValueError, match="slices of events"):
        net.spiking(torch.rand(2, 6, 59, 59))
    with pytest.raises(ValueError, match="until they agree"):
        create_model("stnet", search_size=255)
    with pytest.raises(ValueError, match="differ in length"):
        create_model("stnet", heads=(3,))
    with pytest.raises(ValueError, match="multiple of 4"):
        create_model("stnet", transformer_size=281)
    frames = torch.zeros(2, 2, 6, 90, 120)
    with pytest.raises(ValueError, match="of some area"):
        track(net, frames, (1.0, 1.0, 0.0, 5.0))
    with pytest.raises(ValueError, match="no frame"):
        track(net, frames[:0], (1.0, 1.0, 5.0, 5.0))
