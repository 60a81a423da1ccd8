"""Event recordings: both AEDAT formats, frames, the two data sets; and ImageNet's folders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_toys import recording, write_aedat2, write_aedat3
from PIL import Image

from rheobase.data import Events, download, event_frames, get_dataset, read_aedat2, read_aedat3
from rheobase.data.cifar10 import CIFAR10

pytestmark = pytest.mark.usefixtures("cache")


def same(a: Events, b: Events) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in "txyp")


def test_aedat2_gives_back_what_was_written(tmp_path: Path) -> None:
    events = recording()
    write_aedat2(tmp_path / "a.aedat", events)
    found = read_aedat2(tmp_path / "a.aedat")
    assert same(found, Events(events.t - events.t[0], events.x, events.y, events.p))


@pytest.mark.parametrize("overflow", [0, 1])
def test_aedat3_gives_back_what_was_written(tmp_path: Path, overflow: int) -> None:
    events = recording()
    write_aedat3(tmp_path / "a.aedat", events, overflow)
    found = read_aedat3(tmp_path / "a.aedat")
    assert same(found, Events(events.t + (overflow << 31), events.x, events.y, events.p))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.aedat"
    write_aedat3(file, recording())
    with pytest.raises(ValueError, match=r"does not begin with #!AER-DAT2\.0"):
        read_aedat2(file)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut within a packet of 6 events"):
        read_aedat3(file)
    write_aedat2(file, recording())
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="no multiple of 8"):
        read_aedat2(file)


@pytest.mark.parametrize("by", ["number", "time"])
def test_frames_count_each_event_once_in_its_piece(by: str) -> None:
    """Against the definition, piece by piece (SpikingJelly's ``cal_fixed_frames_number...``)."""
    events, number = recording(103), 4
    frames = event_frames(events, number, by=by)
    assert frames.shape == (4, 2, 128, 128) and frames.sum() == 103
    for i in range(number):
        if by == "number":
            kept = slice(103 // 4 * i, 103 // 4 * (i + 1) if i < 3 else None)
        else:
            step = int(events.t[-1] - events.t[0]) // 4
            kept = events.t >= events.t[0] + step * i
            if i < 3:
                kept &= events.t < events.t[0] + step * (i + 1)
        expected = torch.zeros(2, 128, 128)
        for x, y, p in zip(events.x[kept], events.y[kept], events.p[kept], strict=True):
            expected[p, y, x] += 1
        assert torch.equal(frames[i], expected)


def test_frames_are_scaled_and_refuse_what_does_not_fit() -> None:
    assert event_frames(recording(), 2, size=64).shape == (2, 2, 64, 64)
    with pytest.raises(ValueError, match="3 events, too few for 4 frames"):
        event_frames(recording(3), 4)
    with pytest.raises(ValueError, match="0 microseconds"):
        event_frames(recording(0), 4, by="time")
    with pytest.raises(ValueError, match="outside 64 x 64"):
        event_frames(recording(), 4, shape=(64, 64))
    with pytest.raises(ValueError, match="did you mean 'time'"):
        event_frames(recording(), 4, by="times")


def test_cifar10dvs(tmp_path: Path) -> None:
    for name in CIFAR10.info.classes:
        (tmp_path / name).mkdir()
        for i in range(10):
            write_aedat2(tmp_path / name / f"cifar10_{name}_{i}.aedat", recording(seed=i))
    train = get_dataset("cifar10dvs", root=tmp_path, frames=5)
    test = get_dataset("cifar10dvs", train=False, root=tmp_path, frames=5, by="time", size=32)
    assert (len(train), len(test)) == (90, 10)
    assert train.labels.tolist() == [label for label in range(10) for _ in range(9)]
    frames, label = train[12]
    assert (frames.shape, label) == ((5, 2, 128, 128), 1)
    seen = recording(seed=3)  # turned: columns of the picture are the camera's rows
    upright = Events(seen.t, 127 - seen.y, 127 - seen.x, seen.p)
    assert torch.equal(frames, event_frames(upright, 5))
    assert test[9][0].shape == (5, 2, 32, 32) and test[9][1] == 9
    with pytest.raises(FileNotFoundError, match=r"no AEDAT files in .*airplane"):
        get_dataset("cifar10dvs", root=tmp_path / "airplane")


def test_dvs128gesture(tmp_path: Path) -> None:
    events = recording(200)
    for user in ("user01_led", "user24_lab"):
        write_aedat3(tmp_path / f"{user}.aedat", events)
        rows = "class,startTime_usec,endTime_usec\n3,0,400\n11,400,700\n"
        (tmp_path / f"{user}_labels.csv").write_text(rows)
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n\n")
    (tmp_path / "trials_to_test.txt").write_text("user24_lab.aedat\n")
    train = get_dataset("dvs128gesture", root=tmp_path, frames=3)
    (tmp_path / "user01_led.aedat").unlink()  # cut once, into the cache
    again = pickle.loads(pickle.dumps(get_dataset("dvs128gesture", root=tmp_path, frames=3)))
    assert (len(train), train.labels.tolist()) == (2, [2, 10])
    frames, label = again[1]
    assert label == 10 and again.classes[label] == "other gestures"
    assert torch.equal(frames, event_frames(events.between(400, 700), 3))
    with pytest.raises(FileNotFoundError, match=r"trials_to_train\.txt.*DvsGesture"):
        get_dataset("dvs128gesture", root=tmp_path / "..")


def test_imagenet_from_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, side in (("n02", (40, 60)), ("n01", (90, 50))):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "a.JPEG")
    train = get_dataset("imagenet", root=tmp_path)
    test = get_dataset("imagenet", train=False, root=tmp_path, size=28)
    assert train.classes == ("n01", "n02")
    assert train[0][0].shape == (3, 90, 50) and train[1][0].shape == (3, 40, 60)
    image, label = test[1]
    assert (image.shape, label) == ((3, 28, 28), 1)
    assert image.min() >= 0 and image.max() <= 1
    # The shorter side becomes 32, of which the middle 28 are kept.
    with Image.open(tmp_path / "val" / "n02" / "a.JPEG") as picture:
        scaled = np.array(picture.resize((48, 32), Image.Resampling.BICUBIC))[2:30, 10:38]
    assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(scaled))
    assert get_dataset("imagenet", root=tmp_path, size=28, cut=True)[0][0].shape == (3, 28, 28)
    with pytest.raises(FileNotFoundError, match=r"no \.jpeg, .*folder a class"):
        (tmp_path / "other" / "val").mkdir(parents=True)
        get_dataset("imagenet", train=False, root=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"there is no .*train; root: a folder with"):
        get_dataset("imagenet", root=tmp_path / "other")


def test_what_no_registry_has_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("imagenet", "cifar10dvs", "dvs128gesture"):
        with pytest.raises(FileNotFoundError, match=rf"{name} comes from no package.*data\.root"):
            get_dataset(name)
        with pytest.raises(FileNotFoundError, match="RHEOBASE_DATA is not set"):
            download(name)
    (tmp_path / "imagenet").mkdir()
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    assert download("imagenet") == tmp_path / "imagenet"


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"option of cifar10dvs.*did you mean 'frames'"):
        get_dataset("cifar10dvs", frame=3)
    with pytest.raises(ValueError, match="option of mnist_sample"):
        get_dataset("mnist_sample", frames=3)
