"""Reconstructions of other senses: SMMT, Spiking-PhysFormer, Spiking Conformer."""

import math

import pytest
import torch
from torch.nn.functional import conv3d, cross_entropy

from rheobase.models import create_model
from rheobase.models.smmt import CrossBlock, SMMTConfig
from rheobase.models.spikformer import Block, spikformer_neuron
from rheobase.models.spiking_physformer import (
    MaskingAttention,
    SpikingPhysFormerConfig,
    TemporalDifferenceConv3d,
    physformer_neuron,
)

SMMT = {"depth": 1, "dim": 16, "heads": 2, "image_size": 16, "audio_size": 16, "num_classes": 3}
PULSE = {"dim": 8, "depth": 1, "heads": 2, "frames": 16, "image_size": 32}
EEG = {"electrodes": 4, "dim": 8, "depth": 1, "heads": 2, "samples": 128}


def lively(net):
    """With norms that let neurons fire."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 1.0, 2.0)
            torch.nn.init.uniform_(module.bias, 0.5, 1.5)
            module.momentum = 0.7
    return net


def test_a_modality_that_attends_to_itself_is_spikformer():
    config = SMMTConfig(**SMMT)
    cross = lively(CrossBlock(config, spikformer_neuron())).eval()
    alone = Block(config.images, spikformer_neuron()).eval()
    alone.attn.load_state_dict(cross.attn[0].state_dict())
    alone.mlp.load_state_dict(cross.mlp[0].state_dict())
    x = torch.randint(0, 3, (4, 2, 16, 4, 4)).float()
    seen, _ = cross(x, x)
    assert torch.equal(seen, alone(x)) and not torch.equal(seen, x)


def test_each_modality_attends_to_the_other():
    """Sounds of another number of tokens; silence of one leaves its part of the other out."""
    cross = lively(CrossBlock(SMMTConfig(**SMMT), spikformer_neuron())).eval()
    image = torch.randint(0, 3, (4, 2, 16, 4, 4)).float()
    sound = torch.randint(0, 3, (4, 2, 16, 2, 3)).float()
    seen, heard = cross(image, sound)
    assert seen.shape == image.shape and heard.shape == sound.shape
    other, _ = cross(image, sound.flip(2))
    assert not torch.equal(seen, other)
    first = cross.attn[0]
    by_hand = first.proj(first.neuron(product(first, image, sound) * 0.125))
    assert torch.equal(first.attend(image, sound), by_hand)


def product(attn, image, sound):
    """Every query with every key, head by head."""
    q = attn.q(image).flatten(3).unflatten(2, (2, 8))
    k, v = (unit(sound).flatten(3).unflatten(2, (2, 8)) for unit in (attn.k, attn.v))
    scores = torch.einsum("tnhdi,tnhdj->tnhij", q, k)
    return torch.einsum("tnhij,tnhdj->tnhdi", scores, v).reshape(image.shape)


def test_smmt_runs_on_events_and_still_images():
    net = lively(create_model("smmt_mnistdvs_ntidigits", **SMMT, T=3)).eval()
    images, sounds = torch.rand(3, 2, 2, 16, 16), torch.rand(3, 2, 1, 16, 16)
    assert net(images, sounds).shape == (3, 2, 3)
    assert net(images[0], sounds[0]).shape == (3, 2, 3)
    for wrong, message in (
        ((images, sounds[:2]), "same steps and samples"),
        ((images[0], sounds[:, :1]), "same steps and samples"),
        ((images[:, :, :1], sounds), "2 input channels"),
        ((images, sounds[..., :9]), "multiples of the patch size"),
    ):
        with pytest.raises(ValueError, match=message):
            net(*wrong)
    with pytest.raises(ValueError, match="cross_depth must be positive"):
        create_model("smmt_cifar10_av", cross_depth=0)


def test_queries_see_how_steps_of_the_video_differ():
    """PhysFormer's equation, frame by frame."""
    conv = TemporalDifferenceConv3d(3, 0.7).double()
    x = torch.rand(2, 3, 5, 4, 4, dtype=torch.float64)
    around = conv.weight[:, :, 0].sum((2, 3)) + conv.weight[:, :, 2].sum((2, 3))
    centre = torch.einsum("oc,ncdhw->nodhw", around, x)
    torch.testing.assert_close(conv(x), conv3d(x, conv.weight, padding=1) - 0.7 * centre)
    still = TemporalDifferenceConv3d(3, 1.0).double()
    with torch.no_grad():
        still.weight[:, :, 1] = 0.0
        still.weight[..., [0, 2], :] = 0.0
        still.weight[..., [0, 2]] = 0.0
    same = x[:, :, :1].expand_as(x)
    torch.testing.assert_close(still(same)[:, :, 1:-1], torch.zeros_like(same)[:, :, 1:-1])


def test_queries_and_keys_decide_which_values_pass():
    attn = lively(MaskingAttention(SpikingPhysFormerConfig(**PULSE), physformer_neuron())).eval()
    x = torch.randint(0, 2, (4, 2, 8, 4, 2, 2)).float()
    seen = {}
    for name in ("q_neuron", "k_neuron", "v_neuron", "mask", "neuron"):
        attn.get_submodule(name).register_forward_hook(
            lambda _m, given, out, name=name: seen.update({name: (given[0], out)})
        )
    attn(x)
    q, k, v = (seen[f"{name}_neuron"][1] for name in "qkv")
    counts = (q * k).unflatten(2, (2, 4)).sum(3)
    assert torch.equal(seen["mask"][0].squeeze(3), counts)
    passed = seen["mask"][1] * v.unflatten(2, (2, 4))
    assert torch.equal(seen["neuron"][0], passed.flatten(2, 3))
    assert 0 < passed.mean() < v.mean()
    names = {name for name, _ in attn.named_parameters() if name.startswith("v")}
    assert names == {"v_norm.weight", "v_norm.bias"}  # values have no weights


def test_it_learns_a_pulse():
    """Brightness that beats, at a phase of its own in each video."""
    net = lively(create_model("spiking_physformer", **PULSE))
    t = torch.arange(16) / 16 * 2 * math.pi * 2
    pulse = (t + torch.rand(4, 1) * 6).sin()
    video = 0.5 + 0.2 * pulse[:, None, :, None, None] + 0.02 * torch.randn(4, 3, 16, 32, 32)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        y = net(video)
        losses.append(1 - torch.cosine_similarity(y - y.mean(1, keepdim=True), pulse).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert y.shape == (4, 16)
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in net.parameters())
    (block,) = net.blocks  # spikes reach the ends of both its branches
    assert block.attn.proj.weight.grad.abs().max() > 0 and block.fc2.weight.grad.abs().max() > 0


def test_segments_go_through_the_convolutions_that_are_told():
    net = create_model("spiking_conformer_chbmit", **EEG).eval()
    assert (net.temporal.kernel_size, net.temporal.stride) == ((1, 25), (1, 1))
    assert (net.spatial.kernel_size, net.spatial.stride) == ((4, 1), (1, 1))
    tokens = []
    net.tokens.register_forward_hook(lambda _m, _in, out: tokens.append(out))
    x = torch.randn(2, 4, 300)
    assert net(x).shape == (4, 2, 2)
    assert tokens[0].shape == (4, 2, 8, 1, (300 - 24 - 75) // 15 + 1)
    torch.testing.assert_close(net(x), net(torch.stack([x] * 4)))


def test_it_learns_to_tell_rhythms_apart():
    net = lively(create_model("spiking_conformer_chbmit", **EEG))
    labels = torch.arange(16) % 2
    t = torch.arange(128) / 128 * 2 * math.pi
    waves = ((2 + 8 * labels)[:, None] * t + torch.rand(16, 1) * 6).sin()
    x = waves.unsqueeze(1).repeat(1, 4, 1) + 0.1 * torch.randn(16, 4, 128)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(15):
        logits = net(x).mean(0)
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()
    assert (logits.argmax(1) == labels).float().mean() > 0.85


def test_what_does_not_fit_is_refused():
    video = create_model("spiking_physformer", **PULSE)
    with pytest.raises(ValueError, match=r"videos \[N, 3, frames, H, W\], got \[1, 2"):
        video(torch.rand(1, 2, 16, 32, 32))
    with pytest.raises(ValueError, match="15 frames of 32 x 48"):
        video(torch.rand(1, 3, 15, 32, 48))
    with pytest.raises(TypeError, match=r"call x\.float"):
        video(torch.zeros(1, 3, 16, 32, 32, dtype=torch.uint8))
    eeg = create_model("spiking_conformer_chbmit", **EEG)
    with pytest.raises(ValueError, match=r"\[N, 4, samples\] of 99 samples or more"):
        eeg(torch.rand(1, 4, 98))
    for name, message, changes in (
        ("spiking_physformer", "4 does not divide|4=4 does not divide", {"dim": 90}),
        ("spiking_physformer", "difference is a share", {"difference": 1.5}),
        ("spiking_physformer", "sides of 32", {"image_size": 100}),
        ("spiking_conformer_chbmit", "heads=7 does not divide dim=40", {"heads": 7}),
        ("spiking_conformer_chbmit", "99 samples for one token", {"samples": 50}),
    ):
        with torch.device("meta"), pytest.raises(ValueError, match=message):
            create_model(name, **changes)
