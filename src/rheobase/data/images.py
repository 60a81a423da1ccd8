"""Image data sets: what they share, and the verified memory-mapped cache of the published ones."""

from __future__ import annotations

import hashlib
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rheobase.data.fetch import (
    ChecksumError,
    Source,
    cache_folder,
    fetch,
    locked,
    offline_folder,
)

__all__ = [
    "Bytes",
    "DatasetInfo",
    "ImageDataset",
    "LabelledImages",
    "PublishedImages",
    "Transform",
    "user_folder",
]

Bytes = NDArray[np.uint8]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DatasetInfo:
    """What there is to know of a data set before having it.

    ``shape`` is ``(C, H, W)``, ``sizes`` the number of training and of test images.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: tuple[int, int]
    licence: str
    how: str


class LabelledImages(Dataset[tuple[Tensor, Any]]):
    """Labelled images, or frames of recordings: ``(float32 [(T,) C, H, W], int)`` by index.

    ``labels`` are int64 ``[N]``. Texts have numbers of words for pixels, int64 ``[L]``, and some a
    label at every word, ``[N, L]`` (`rheobase.data.texts`).
    """

    info: ClassVar[DatasetInfo]
    labels: Tensor
    transform: Transform | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, by label."""
        return self.info.classes

    @classmethod
    def download(cls) -> Path:
        """Have the whole data set on this machine, verified; return where it lies.

        Raises:
            FileNotFoundError: no package registry has it, and ``RHEOBASE_DATA`` neither.
        """
        return user_folder(cls.info, None, (cls.info.name,))

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """The image and the label of a sample."""


def user_folder(
    info: DatasetInfo, root: str | os.PathLike[str] | None, names: Sequence[str]
) -> Path:
    """The folder that holds a data set which no package registry has.

    Args:
        info: of the data set.
        root: the user's, or None for one of ``names`` in the folder ``RHEOBASE_DATA``.
        names: usual ones of such a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    offline = offline_folder()
    tried = [Path(root)] if root is not None else [offline / n for n in names] if offline else []
    for folder in tried:
        if folder.is_dir():
            return folder
    looked = ", ".join(map(str, tried)) or "RHEOBASE_DATA is not set"
    raise FileNotFoundError(
        f"{info.name} comes from no package registry and was not found ({looked}); get it from its "
        f"authors and give its folder as data.root ({info.how})"
    )


class ImageDataset(LabelledImages):
    """Labelled images in memory: ``(float32 [C, H, W] in 0..1, int)`` by index.

    ``images`` (uint8 ``[N, C, H, W]``) and ``labels`` (int64 ``[N]``) are there for pipelines that
    take whole batches at once.
    """

    images: Tensor

    @classmethod
    @abstractmethod
    def download(cls) -> Path:
        """Have the whole data set on this machine, verified; return where it lies."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image and the label of a sample."""
        image = self.images[index].float() / 255
        return self.transform(image) if self.transform else image, int(self.labels[index])


class PublishedImages(ImageDataset):
    """A full published data set, from a folder of the user's or from a package registry.

    The common currency is the bytes of the published files, whose MD5 sums are known: sources
    turn into them, they are checked, and converted once into memory-mapped arrays in the cache.
    Opening the cache checks it against the same sums. Worker processes open the arrays anew.

    Args:
        root: folder that holds the published files; None looks in the cache, then in the folder
            ``RHEOBASE_DATA``, then asks the package client.
        train: the training or the test images.
        transform: applied to each float image.

    Raises:
        FileNotFoundError: ``root`` holds no such files, or the package client is missing.
        ChecksumError: data are truncated or tampered with; names both hashes.
    """

    source: ClassVar[Source]
    md5: ClassVar[Mapping[bool, Mapping[str, str]]]  # train? -> published file -> sum
    folders: ClassVar[Sequence[str]]  # usual names of the folder that holds the files

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
    ) -> None:
        self.train = train
        self.transform = transform
        self._folder = cache_folder() / self.info.name / ("train" if train else "test")
        self._folder.parent.mkdir(exist_ok=True)
        if root is not None or not self._folder.is_dir():
            with locked(self._folder):
                self._convert(None if root is None else Path(root))
        self._open_verified()

    @classmethod
    def download(cls) -> Path:
        """Have both splits in the cache, verified; return the cache folder."""
        cls(train=True)
        cls(train=False)
        return cache_folder() / cls.info.name

    @abstractmethod
    def _from_folders(self, folders: Sequence[Path]) -> dict[str, bytes]:
        """Return the published files of this split from the first folder that has them."""

    @abstractmethod
    def _from_archive(self, archive: Path) -> dict[str, bytes]:
        """Return the published files of this split from the package archive."""

    @abstractmethod
    def _decode(self, files: Mapping[str, bytes]) -> tuple[Bytes, Bytes]:
        """Turn the published files into images ``[N, C, H, W]`` and labels ``[N]``."""

    @abstractmethod
    def _encode(self, images: Bytes, labels: Bytes) -> dict[str, bytes]:
        """Turn arrays back into the published files."""

    def _convert(self, root: Path | None) -> None:
        if root is None and self._folder.is_dir():  # another process has just done it
            return
        files = self._obtain(root)
        self._check(files)
        if not self._folder.is_dir():
            self._save(*self._decode(files))

    def _obtain(self, root: Path | None) -> dict[str, bytes]:
        if root is not None:
            return self._from_folders([root, root / "raw", *(root / name for name in self.folders)])
        offline = offline_folder()
        if offline is not None:
            with suppress(FileNotFoundError):
                return self._from_folders([offline / name for name in self.folders])
        return self._from_archive(fetch(self.source))

    def _check(self, files: Mapping[str, bytes]) -> None:
        for name, expected in self.md5[self.train].items():
            found = hashlib.md5(files[name], usedforsecurity=False).hexdigest()
            if found != expected:
                raise ChecksumError(
                    f"{self.info.name}: {name} is truncated or not the published file: "
                    f"expected md5 {expected}, found {found}"
                )

    def _save(self, images: Bytes, labels: Bytes) -> None:
        part = self._folder.with_name(self._folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)  # what a killed process left
        part.mkdir()
        np.save(part / "images.npy", images)
        np.save(part / "labels.npy", labels)
        os.replace(part, self._folder)

    def _open(self) -> None:
        # Copy-on-write: torch wants writable memory, and the file must stay as it is.
        images = np.load(self._folder / "images.npy", mmap_mode="c", allow_pickle=False)
        labels = np.load(self._folder / "labels.npy", allow_pickle=False)
        self.images = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels).long()

    def _open_verified(self) -> None:
        try:
            self._open()
            self._check(self._encode(self.images.numpy(), self.labels.byte().numpy()))
        except (FileNotFoundError, EOFError, ValueError, IndexError, TypeError) as error:
            raise ChecksumError(
                f"{error}; the cached copy is damaged: delete {self._folder} and run again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in {"images", "labels"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
