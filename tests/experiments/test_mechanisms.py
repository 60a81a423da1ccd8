"""What is measured besides accuracy, against values made by hand."""

import math

import pytest
import torch
from torch import nn

from rheobase.experiments import mechanisms
from rheobase.experiments.mechanisms import Trained
from rheobase.experiments.pairs import PAIRS
from rheobase.neurons import IF, LSGLIF
from rheobase.surrogate import Rectangular


def trained(net, sequence, labels=()):
    return Trained(net.eval(), torch.as_tensor(sequence), torch.tensor(labels), [])


class Answers(nn.Module):
    """Logits that are given, ``[T, N, classes]``, whatever the images; it keeps those."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        self.images = images
        return self.logits


class First(nn.Module):
    def forward(self, x):
        return x[..., :1]


def test_accuracy_at_fewer_steps():
    # Class 1 is right for both. One step says so of the second image alone, the first two steps
    # together of both, all three of none.
    steps = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 2.0]], [[9.0, 0.0], [9.0, 0.0]]]
    net = Answers(torch.tensor(steps))
    assert mechanisms.accuracy_at_fewer_steps(trained(net, torch.zeros(2, 1, 2, 2), [1, 1])) == 0.75


def test_accuracy_in_noise():
    images = torch.zeros(2, 1, 50, 50)
    net = Answers(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    assert mechanisms.accuracy_in_noise(trained(net, images, [0, 1])) == 0.5
    seen = net.images
    assert seen.std().item() == pytest.approx(1.0, abs=0.05)
    mechanisms.accuracy_in_noise(trained(net, images, [0, 1]))
    assert torch.equal(net.images, seen)


def test_accuracy_over_epochs():
    found = Trained(nn.Identity(), torch.zeros(1), torch.zeros(1), [0.5, 0.75, 1.0])
    assert mechanisms.accuracy_over_epochs(found) == 0.75


def test_spikes_are_counted_over_the_network():
    # One of three fires, then one of one: 2 of 4, at each of two steps.
    net = nn.Sequential(IF(), First(), IF())
    sequence = torch.tensor([1.0, 0.0, 0.0]).expand(2, 1, 3)
    assert mechanisms.spikes_per_step(trained(net, sequence)) == 0.5


def test_entropy_of_spikes():
    # A layer that fires half of the time carries a bit, one that is silent none.
    net = nn.Sequential(IF(), IF(v_threshold=2.0))
    assert mechanisms.entropy_of_spikes(trained(net, [[[1.0, 0.0]]])) == 0.5
    quarter = trained(nn.Sequential(IF()), [[[1.0, 0.0, 0.0, 0.0]]])
    by_hand = 0.25 * 2.0 + 0.75 * math.log2(4.0 / 3.0)
    assert mechanisms.entropy_of_spikes(quarter) == pytest.approx(by_hand)


def test_quantisation_error():
    # Membranes 0.75 and 1.5, spikes 0 and 1.
    found = trained(nn.Sequential(IF()), [[[0.75]], [[0.75]]])
    assert mechanisms.quantisation_error(found) == (0.75**2 + 0.5**2) / 2


@pytest.mark.parametrize(
    ("neuron", "share"),
    [
        (IF(v_threshold=0.5, surrogate=Rectangular(1.0)), 0.25),  # within 0.5 of the threshold
        (LSGLIF(decay=0.8), 0.75),  # within sqrt(1.64) / 2 = 0.64
    ],
)
def test_share_with_gradient(neuron, share):
    # 0.6, 0.2, 0.6 and 0.7 from the threshold.
    found = trained(nn.Sequential(neuron), [[[-0.1, 0.7, 1.1, 1.2]]])
    assert mechanisms.share_with_gradient(found) == share


def test_gradient_cosine_of_a_network_without_spikes_is_1():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Unflatten(0, (1, -1)))
    found = trained(net, torch.rand(5, 1, 2, 2), [0, 1, 2, 0, 1])
    assert mechanisms.gradient_cosine(found) == pytest.approx(1.0, abs=1e-3)


def test_distance_between_steps():
    # Means 2 and 6, deviations 1 and 2; of 1, 3, 4 and 8 together 4 and the root of 6.5.
    found = trained(nn.Sequential(IF()), [[[1.0], [3.0]], [[4.0], [8.0]]])
    d = math.sqrt(6.5)
    by_hand = (math.hypot(2.0, 1.0 - d) + math.hypot(2.0, 2.0 - d)) / d / 2
    assert mechanisms.distance_between_steps(found) == pytest.approx(by_hand)
    same = trained(nn.Sequential(IF()), [[[1.0], [3.0]], [[1.0], [3.0]]])
    assert mechanisms.distance_between_steps(same) == 0.0


def test_distance_from_normal():
    # Two channels: mean 2 and deviation 1, mean 0 and deviation 4.
    found = trained(nn.Sequential(IF()), [[[1.0, -4.0], [3.0, 4.0]]])
    assert mechanisms.distance_from_normal(found) == pytest.approx((2.0 + 3.0) / 2)


def test_every_measure_is_one_of_these():
    named = {getattr(mechanisms, name) for name in mechanisms.__all__}
    assert all(pair.mechanism.of in named for pair in PAIRS.values() if pair.mechanism)
