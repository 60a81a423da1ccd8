"""Event data sets from a folder of the user's: CIFAR10-DVS and DVS128 Gesture."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rheobase.data.cifar10 import CIFAR10
from rheobase.data.events import Events, event_frames, read_aedat2, read_aedat3
from rheobase.data.fetch import cache_folder, locked
from rheobase.data.images import DatasetInfo, LabelledImages, Transform, user_folder

__all__ = ["CIFAR10DVS", "DVS128Gesture", "EventDataset"]


class EventDataset(LabelledImages):
    """Labelled recordings, cut into frames when asked for: ``(float32 [T, 2, H, W], int)``.

    Args:
        root: folder with the published files; None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the test recordings.
        transform: applied to the frames.
        frames: T.
        by: "number" or "time", see `rheobase.data.event_frames`.
        size: side that frames are scaled to; None leaves the camera's 128.

    Raises:
        FileNotFoundError: ``root`` holds no such files.
        ValueError: a file is damaged.
    """

    folders: ClassVar[tuple[str, ...]]  # usual names of the folder that holds the files

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
        *,
        frames: int = 16,
        by: str = "number",
        size: int | None = None,
    ) -> None:
        self.transform = transform
        self.frames, self.by, self.size = frames, by, size
        files, labels = self._recordings(user_folder(self.info, root, self.folders), train)
        self.files = files
        self.labels = torch.tensor(labels)

    @abstractmethod
    def _recordings(self, root: Path, train: bool) -> tuple[list[Path], list[int]]:
        """The files of a split, one a recording, and their labels."""

    @abstractmethod
    def events(self, index: int) -> Events:
        """One recording."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        frames = event_frames(self.events(index), self.frames, by=self.by, size=self.size)
        return self.transform(frames) if self.transform else frames, int(self.labels[index])


class CIFAR10DVS(EventDataset):
    """CIFAR10-DVS: 10,000 moving CIFAR-10 images seen by a DVS128 (Li et al. 2017).

    ``root`` holds a folder a class with its AEDAT 2.0 files (``airplane/cifar10_airplane_0.aedat``
    …). There is no official split: as in most papers, the first 90 % of each class, in the order
    of file names, are for training. Images stand upright, as in the published pictures.
    """

    info = DatasetInfo(
        name="cifar10dvs",
        description="CIFAR-10 images moved before an event camera",
        classes=CIFAR10.info.classes,
        shape=(2, 128, 128),
        sizes=(9_000, 1_000),
        licence="CC BY 4.0; cite Li et al. (2017)",
        how="root: the unpacked archives of figshare 4724671",
    )
    folders = ("cifar10dvs", "CIFAR10DVS", "CIFAR10-DVS")

    def _recordings(self, root: Path, train: bool) -> tuple[list[Path], list[int]]:
        found: list[tuple[Path, int]] = []
        for label, name in enumerate(self.info.classes):
            files = sorted((root / name).glob("*.aedat"))
            if not files:
                raise FileNotFoundError(
                    f"cifar10dvs: no AEDAT files in {root / name}; unpack the published archives "
                    "to one folder a class"
                )
            cut = -(-len(files) * 9 // 10)
            found += [(file, label) for file in (files[:cut] if train else files[cut:])]
        return [file for file, _ in found], [label for _, label in found]

    def events(self, index: int) -> Events:
        """One recording, turned upright."""
        seen = read_aedat2(self.files[index])
        return Events(seen.t, 127 - seen.y, 127 - seen.x, seen.p)


class DVS128Gesture(EventDataset):
    """DVS128 Gesture: 11 hand gestures of 29 people before a DVS128 (Amir et al. 2017).

    ``root`` holds the unpacked ``DvsGesture`` folder: ``user01_fluorescent.aedat`` (AEDAT 3.1) and
    ``user01_fluorescent_labels.csv`` …, ``trials_to_train.txt`` and ``trials_to_test.txt``. The
    first use cuts the files into gestures, into the cache.
    """

    info = DatasetInfo(
        name="dvs128gesture",
        description="hand gestures before an event camera",
        classes=(
            "hand clapping",
            "right hand wave",
            "left hand wave",
            "right arm clockwise",
            "right arm counter clockwise",
            "left arm clockwise",
            "left arm counter clockwise",
            "arm roll",
            "air drums",
            "air guitar",
            "other gestures",
        ),
        shape=(2, 128, 128),
        sizes=(1_176, 288),
        licence="CC BY 4.0; cite Amir et al. (2017)",
        how="root: the unpacked DvsGesture.tar.gz of IBM",
    )
    folders = ("DvsGesture", "dvs128gesture", "DVS128Gesture")

    def _recordings(self, root: Path, train: bool) -> tuple[list[Path], list[int]]:
        listed = root / f"trials_to_{'train' if train else 'test'}.txt"
        if not listed.is_file():
            raise FileNotFoundError(f"dvs128gesture: there is no {listed}; root= is DvsGesture")
        names = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        folder = cache_folder() / self.info.name / f"{listed.stem}_{key}"
        folder.parent.mkdir(exist_ok=True)
        with locked(folder):
            if not folder.is_dir():
                _cut(root, names, folder)
        files = sorted(folder.glob("*.npy"))
        return files, [int(file.stem.rpartition("_")[2]) for file in files]

    def events(self, index: int) -> Events:
        """One gesture."""
        t, x, y, p = np.load(self.files[index], allow_pickle=False).astype(np.int64)
        return Events(t, x, y, p)


def _cut(root: Path, names: Iterable[str], folder: Path) -> None:
    """Write each gesture of the named files as ``NAME_NUMBER_LABEL.npy``, uint32 ``[4, n]``."""
    from rich.progress import track

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # what a killed process left
    part.mkdir()
    quiet = not sys.stderr.isatty()
    for name in track(list(names), "cutting DVS128 Gesture", disable=quiet):
        path = root / name
        table = path.with_name(f"{path.stem}_labels.csv")
        for file in (path, table):
            if not file.is_file():
                raise FileNotFoundError(f"dvs128gesture: there is no {file}")
        events = read_aedat3(path)
        rows = np.loadtxt(table, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2)
        for number, (gesture, start, end) in enumerate(rows):
            piece = events.between(start, end)
            arrays = np.stack([piece.t, piece.x, piece.y, piece.p]).astype(np.uint32)
            np.save(part / f"{path.stem}_{number:02d}_{gesture - 1}.npy", arrays)
    os.replace(part, folder)
