from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from rheobase._weights import read_state, read_tensors
from rheobase.train import CheckpointError, Checkpoints
from rheobase.train.checkpoint import verify, write_state, write_tensors


def fill(folder: Path, number: float = 1.0) -> None:
    write_tensors(folder / "model.safetensors", {"w": torch.full((3,), number)})
    write_state(folder / "state.pt", {"step": 3, "nested": {"lr": [0.1, None]}})


def test_saves_points_and_prunes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.latest() is None
    for step in range(5):
        checkpoints.save(f"step-{step}", lambda folder, n=step: fill(folder, n), best=step == 1)
    assert sorted(p.name for p in (tmp_path / "c").glob("step-*")) == ["step-1", "step-3", "step-4"]
    latest, best = checkpoints.latest(), checkpoints.best()
    assert latest is not None and best is not None
    verify(latest)
    assert read_tensors(latest / "model.safetensors")["w"].tolist() == [4.0] * 3
    assert read_tensors(best / "model.safetensors")["w"].tolist() == [1.0] * 3
    assert read_state(latest / "state.pt") == {"step": 3, "nested": {"lr": [0.1, None]}}


@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    previous = checkpoints.save("step-1", fill)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        OSError, match=r"step-2 not saved: the disk is full; .*step-1 is intact"
    ) as e:
        checkpoints.save("step-2", fill)
    assert e.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert checkpoints.latest() == previous
    verify(previous)
    assert not list(tmp_path.glob("unfinished-*"))
    assert checkpoints.save("step-2", fill) == checkpoints.latest()


def test_crash_while_writing_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    previous = checkpoints.save("step-1", fill)
    write_tensors(checkpoints.begin("step-2") / "model.safetensors", {})  # and then power is lost
    assert Checkpoints(tmp_path).latest() == previous
    checkpoints.save("step-2", fill)
    assert not list(tmp_path.glob("unfinished-*"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_damage_is_found_and_the_file_named(tmp_path: Path, damage: str, name: str) -> None:
    checkpoint = Checkpoints(tmp_path).save("step-1", fill)
    file = checkpoint / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[:-5])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name} .*(sha256 [0-9a-f]{{64}})"):
        verify(checkpoint)


def test_truncated_files_without_manifest_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    for name, read in (("model.safetensors", read_tensors), ("state.pt", read_state)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
        with pytest.raises(CheckpointError, match=name):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        verify(tmp_path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_pickle_is_refused_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "exploded"
    torch.save({"step": 1, "bomb": Bomb(target)}, tmp_path / "state.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(target)))
    for name in ("state.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=r"refused, nothing in it was executed"):
            read_state(tmp_path / name)
    assert not target.exists()
