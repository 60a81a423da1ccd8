"""Sequences of the user's: one array a file, one folder a class."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from rheobase.data.class_folders import ClassFolders
from rheobase.data.images import DatasetInfo, Transform, user_folder

__all__ = ["Sequences"]


class Sequences(ClassFolders):
    """Sequences that are made already, for recordings that no data set here reads.

    ``root`` holds ``train`` and ``test``, each with a folder a class of ``.npy`` files: arrays
    ``[T, C, H, W]`` of numbers, taken as they are, all of one shape. What makes them of events is
    `rheobase.data.event_frames`; frames and events of the same steps lie beside each other in C
    (`rheobase.models.sstformer.beside`). Labels number the folders in order.

    Args:
        root: the folder; None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the test sequences.
        transform: applied to each of them.

    Raises:
        FileNotFoundError: ``root`` holds no such files.
    """

    info = DatasetInfo(
        name="sequences",
        description="sequences of yours",
        classes=(),
        shape=(0, 0, 0),
        sizes=(0, 0),
        licence="yours",
        how="root: a folder with train/ and test/, a folder of .npy files [T, C, H, W] a class",
    )
    suffixes = (".npy",)

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        self.transform = transform
        folder = user_folder(self.info, root, (self.info.name,)) / ("train" if train else "test")
        self._list(folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One sequence ``[T, C, H, W]`` and its label.

        Raises:
            ValueError: the file is no such array.
        """
        array = np.load(self.files[index], allow_pickle=False)
        if array.ndim != 4:
            raise ValueError(
                f"{self.files[index]} is of shape {list(array.shape)}; expected [T, C, H, W]"
            )
        sequence = torch.from_numpy(array).float()
        return self.transform(sequence) if self.transform else sequence, int(self.labels[index])
