"""SST: what its goldens do not hold (tests/test_goldens_models.py has those)."""

import numpy as np
import pytest
import torch

from rheobase.data import Events
from rheobase.models import create_model, load_official
from rheobase.models.sst import (
    SST,
    SSTConfig,
    SSTLayer,
    SSTLayerConfig,
    _places,
    _rotations,
    event_channels,
)
from rheobase.neurons import IF, PLIF, Neuron

CONFIG = SSTConfig(T=2, depth=18, layers=1, hidden=16, image_size=64)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_those_of_the_released_modules():
    with torch.device("meta"):
        net = create_model("sst_34_t64")
        assert count(net.layers[0]) == 3_157_510
        assert count(net.backbone) == 21_287_844
        assert count(create_model("sst_34_t64", depth=18).backbone) == 11_179_668
        large = create_model("sst_34_t64", depth=50)
        assert count(large.backbone) == 23_511_221 and count(large.layers[0]) == 12_602_374


def test_it_runs_on_a_recording():
    """Events of a dot that goes right, each step cut into four slices of time."""
    t = np.arange(0, 800)
    events = Events(t, t // 10, t // 10 * 0 + 7, t % 2)
    frames = event_channels(events, 0, 800, CONFIG, shape=(40, 80))
    assert frames.shape == (2, 1, 4, 64, 64) and set(frames.unique().tolist()) == {0.0, 1.0}
    columns = [frames[step, 0, slice_].amax(0).nonzero().float().mean() for step in (0, 1)
               for slice_ in range(4)]  # fmt: skip
    assert columns == sorted(columns)
    pose = SST(CONFIG).eval()(frames)
    assert pose.rotation.shape == (3, 1, 24, 3, 3)
    assert pose.translation.shape == (3, 1, 3) and pose.shape.shape == (3, 1, 10)


def test_steps_are_those_of_the_input():
    net = SST(CONFIG).eval()
    pose = net(torch.randint(0, 2, (5, 1, 4, 64, 64)).float())
    assert len(pose.rotation) == len(pose.translation) == len(pose.shape) == 6
    again = load_official("sst", net.state_dict(), {"num_frames": 2})
    assert again.config.T == 2 and load_official("sst", net.state_dict()).config.T == 64


def test_rotations_are_rotations():
    turned = _rotations(torch.randn(5, 6, dtype=torch.float64))
    torch.testing.assert_close(
        turned @ turned.mT, torch.eye(3, dtype=torch.float64).expand_as(turned)
    )
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(5, dtype=torch.float64))


def test_maps_of_one_column_have_a_place():
    assert torch.isfinite(_places(4, 8, 3, 1)).all()


def test_the_neuron_is_told_by_the_weights():
    for learn_tau, kind in ((True, PLIF), (False, IF)):
        layer = SSTLayer(SSTLayerConfig(dim=8, hidden=16, learn_tau=learn_tau))
        again = load_official("sst", layer.state_dict())
        neurons = {type(m) for m in again.modules() if isinstance(m, Neuron)}
        assert neurons == {kind}


def test_branches_begin_silent_and_learn():
    net = SST(CONFIG).train()
    layer = net.layers[0]
    x = torch.randint(0, 2, (2, 2, 512, 2, 2)).float()
    assert torch.equal(layer(x), x)
    pose = net(torch.randint(0, 2, (2, 2, 4, 64, 64)).float())
    (pose.rotation.sum() + pose.translation.sum() + pose.shape.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_what_does_not_fit_is_refused():
    net = SST(CONFIG)
    with pytest.raises(ValueError, match=r"\[T, N, C, H, W\].*got \[3, 4"):
        net(torch.zeros(3, 4, 64, 64))
    with pytest.raises(ValueError, match="32 pixels"):
        net(torch.zeros(2, 1, 4, 16, 16))
    with pytest.raises(ValueError, match="4 input channels"):
        net(torch.zeros(2, 1, 2, 64, 64))
    for message, changes in (
        ("depth must be one of", {"depth": 101}),
        ("heads=3 does not divide hidden=1024", {"heads": 3}),
        ("connect must be one of", {"connect": "OR"}),
        ("T must be positive", {"T": 0}),
    ):
        with torch.device("meta"), pytest.raises(ValueError, match=message):
            create_model("sst_34_t8", **changes)
    with pytest.raises(ValueError, match="not an SST checkpoint"):
        load_official("sst", {"x": torch.zeros(1)})
