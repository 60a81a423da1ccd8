"""SDiT, a reconstruction: RWKV's equations, and that it learns to make images."""

import pytest
import torch

from rheobase.data import MNISTSample
from rheobase.layers.wkv import weighted_key_values
from rheobase.models import create_model
from rheobase.models.sdit import _kept, denoising_loss, generate

SMALL = {"depth": 1, "dim": 32, "image_size": 8, "patch_size": 2, "levels": 50, "T": 2}


def test_tokens_are_weighted_by_the_equation():
    torch.manual_seed(0)
    k, v = torch.randn(6, 2, 3, dtype=torch.float64) * 3, torch.randn(6, 2, 3, dtype=torch.float64)
    decay, first = torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    for t in range(6):
        weights = [(-(t - 1 - i) * decay + k[i]).exp() for i in range(t)] + [(first + k[t]).exp()]
        by_hand = sum(w * v[i] for i, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(weighted_key_values(k, v, decay, first)[0][t], by_hand)
    assert torch.isfinite(weighted_key_values(k * 1e4, v, decay, first)[0]).all()


def test_a_token_sees_itself_and_those_before_it():
    net = create_model("sdit_mnist", **SMALL).double()
    mixing = net.blocks[0][0]
    torch.nn.init.normal_(mixing.norm.weight, 3.0)
    x = torch.randn(2, 1, 16, 32, dtype=torch.float64)
    other = x.clone()
    other[:, :, 9] = -other[:, :, 9]
    first, second = mixing(x), mixing(other)
    assert torch.equal(first[:, :, :9], second[:, :, :9])
    assert not torch.equal(first[:, :, 10:], second[:, :, 10:])


def test_the_reconstruction_module_sees_what_does_not_fire():
    mixing = create_model("sdit_mnist", **SMALL).blocks[0][0]
    torch.nn.init.constant_(mixing.norm.weight, 0.01)  # nothing reaches a threshold
    x = torch.randn(2, 1, 16, 32)
    spikes = []
    mixing.neuron.register_forward_hook(lambda _m, _in, out: spikes.append(out))
    y = mixing(x)
    assert not spikes[0].any()
    torch.testing.assert_close(y, mixing.reconstruction(mixing.norm(x)))
    assert y.abs().max() > 0


def test_it_learns_to_see_noise_in_digits():
    digits = MNISTSample(train=True)
    images = torch.stack([digits[i][0] for i in range(32)])[:, :, 2:26, 2:26]
    images = torch.nn.functional.avg_pool2d(images, 3) * 2 - 1
    net = create_model("sdit_mnist", **SMALL)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        losses.append(denoising_loss(net, images))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert all(p.grad is not None for p in net.parameters())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    made = generate(net.eval(), 3)
    assert made.shape == (3, 1, 8, 8) and torch.isfinite(made).all()


def test_noise_takes_all_that_the_image_was():
    kept = _kept(1000, torch.zeros(()))
    assert kept[0] > 0.999 and kept[-1] < 1e-4 and (kept.diff() < 0).all()


def test_perfect_knowledge_of_the_noise_brings_the_image_back():
    """The sampler, given a network that knows the one image that there is."""
    net = create_model("sdit_mnist", **SMALL).double()
    image = torch.rand(1, 8, 8, dtype=torch.float64) * 2 - 1
    kept = _kept(50, image)

    def knows(x, level):
        share = kept[level].view(-1, 1, 1, 1)
        return (x - share.sqrt() * image) / (1 - share).sqrt()

    net.forward = knows
    torch.testing.assert_close(generate(net, 2), image.expand(2, -1, -1, -1))


def test_what_does_not_fit_is_refused():
    net = create_model("sdit_cifar10", **SMALL)
    x = torch.randn(2, 3, 8, 8)
    for images, level, message in (
        (x[:, :1], torch.zeros(2), r"images \[N, 3, 8, 8\]"),
        (x, torch.zeros(3), r"a level for each, got .* \[3\]"),
        (x, torch.tensor([0, 50]), "go from 0 to 49"),
    ):
        with pytest.raises(ValueError, match=message):
            net(images, level)
    with pytest.raises(ValueError, match="not a multiple of patch_size=5"):
        create_model("sdit_mnist", patch_size=5)
    with pytest.raises(ValueError, match="levels=20 are too few"):
        create_model("sdit_mnist", levels=20)
