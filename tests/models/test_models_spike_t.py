"""Spike-T: what its goldens do not hold (tests/test_goldens_models.py has those)."""

import numpy as np
import pytest
import torch

from rheobase.data import read_spike_camera
from rheobase.models import create_model, load_official
from rheobase.models.spike_t import metres

SMALL = {"frames": 8, "block": 4, "dim": 8, "depths": (1, 2), "heads": (1, 2), "window": 3}


def small():
    return create_model("spike_t", **SMALL).eval()


def test_it_runs_on_a_recording(tmp_path):
    """Bits of a camera that never fires on the left and always on the right."""
    frames = np.zeros((8, 16, 24), np.uint8)
    frames[:, :, 12:] = 1
    file = tmp_path / "spikes.dat"
    file.write_bytes(np.packbits(frames[:, ::-1], bitorder="little").tobytes())
    spikes = read_spike_camera(file, shape=(16, 24))
    assert torch.equal(spikes, torch.from_numpy(frames))
    depth = small()(spikes.float().unsqueeze(0))
    assert depth.shape == (1, 1, 16, 24)
    assert (depth > 0).all() and (depth < 1).all()
    assert not torch.equal(depth[..., :4], depth[..., -4:])


def test_frames_are_read_from_arrays_and_files(tmp_path):
    frames = np.random.default_rng(0).integers(0, 2, (3, 4, 16)).astype(np.uint8)
    np.save(tmp_path / "frames.npy", frames * 5.0)
    assert torch.equal(read_spike_camera(tmp_path / "frames.npy"), torch.from_numpy(frames))
    np.save(tmp_path / "flat.npy", frames[0])
    with pytest.raises(ValueError, match=r"\[frames, H, W\], but \[4, 16\]"):
        read_spike_camera(tmp_path / "flat.npy")
    (tmp_path / "cut.dat").write_bytes(bytes(13))
    with pytest.raises(ValueError, match="13 bytes, no whole number of frames"):
        read_spike_camera(tmp_path / "cut.dat", shape=(4, 16))


def test_metres_undo_what_training_made_of_depth():
    """The released data set's: 1 + ln(z / 1000) / 5.7, cut to 0 and 1."""
    z = torch.tensor([4.0, 50.0, 900.0])
    torch.testing.assert_close(metres(1.0 + (z / 1000.0).log() / 5.7), z)


def test_training_reaches_every_parameter():
    net = small().train()
    net(torch.randint(0, 2, (2, 8, 16, 16)).float()).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_what_does_not_fit_is_refused():
    net = small()
    with pytest.raises(ValueError, match=r"\[N, 8, H, W\] of 8 binary frames, got \[1, 9"):
        net(torch.zeros(1, 9, 16, 16))
    with pytest.raises(ValueError, match="multiples of 4"):
        net(torch.zeros(1, 8, 16, 18))
    with pytest.raises(TypeError, match=r"call x\.float"):
        net(torch.zeros(1, 8, 16, 16, dtype=torch.uint8))
    for message, changes in (
        ("block=3 does not divide frames=8", {"block": 3}),
        ("steps=2 does not divide dim=9", {"dim": 9}),
        ("heads=3 does not divide the width 16", {"heads": (1, 3)}),
        ("differ in length", {"heads": (1,)}),
    ):
        with pytest.raises(ValueError, match=message):
            create_model("spike_t", **(SMALL | changes))
    with pytest.raises(ValueError, match="not a Spike-T checkpoint"):
        load_official("spike_t", {"pred.conv2d.weight": torch.zeros(1, 4, 1, 1)})
    with pytest.raises(ValueError, match="patches of 2 x 2"):
        weights = create_model("spike_t", **SMALL).state_dict()
        load_official("spike_t", weights, {"swin_patch_size": [4, 4, 4]})
