"""CIFAR-100, from its Python version in a folder of the user's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import torch

from rheobase.data.images import DatasetInfo, ImageDataset, Transform, user_folder
from rheobase.data.pickles import read_batch

__all__ = ["CIFAR100"]

_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class CIFAR100(ImageDataset):
    """The 50,000 + 10,000 small colour photographs of 100 kinds, ``[3, 32, 32]`` (Krizhevsky 2009).

    No package registry has it: ``root`` is the folder ``cifar-100-python`` of the published Python
    version, or the one above. Its files are read without running anything in them, and held to
    their MD5 sums. Labels are the fine ones.

    Args:
        root: None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the test images.
        transform: applied to each float image.

    Raises:
        FileNotFoundError: there is no such folder, or not the files in it.
        ChecksumError: they are truncated or tampered with.
    """

    info = DatasetInfo(
        name="cifar100",
        description="small colour photographs of 100 kinds",
        classes=tuple(_CLASSES.split()),
        shape=(3, 32, 32),
        sizes=(50_000, 10_000),
        licence="none stated; cite Krizhevsky (2009)",
        how="the folder cifar-100-python of its authors' archive, with train and test",
    )
    md5: ClassVar = {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        self.transform = transform
        name = "train" if train else "test"
        folder = user_folder(self.info, root, ("cifar-100-python", "cifar100"))
        file = _file(folder, name)
        pixels, labels = read_batch(file, "fine_labels", self.md5[name])
        self.images = torch.from_numpy(pixels).reshape(-1, *self.info.shape)
        self.labels = torch.from_numpy(labels).long()

    @classmethod
    def download(cls) -> Path:
        """The user's folder.

        Raises:
            FileNotFoundError: there is none.
        """
        return user_folder(cls.info, None, ("cifar-100-python", "cifar100"))


def _file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / "cifar-100-python" / name):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"cifar100: expected the file {name!r} of the Python version in {folder} or in its folder "
        "cifar-100-python"
    )
