"""The data sets by name."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from rheobase.data.cifar10 import CIFAR10
from rheobase.data.images import DatasetInfo, ImageDataset, PublishedImages, Transform
from rheobase.data.mnist import MNIST, FashionMNIST
from rheobase.data.sample import MNISTSample

__all__ = ["download", "get_dataset", "list_datasets"]

_PUBLISHED: dict[str, type[PublishedImages]] = {
    c.info.name: c for c in (MNIST, FashionMNIST, CIFAR10)
}
_ALL: dict[str, type[ImageDataset]] = {MNISTSample.info.name: MNISTSample, **_PUBLISHED}


def list_datasets() -> list[DatasetInfo]:
    """Return what is known of every data set.

    >>> [info.name for info in list_datasets()]
    ['mnist_sample', 'mnist', 'fashion_mnist', 'cifar10']
    """
    return [dataset.info for dataset in _ALL.values()]


def get_dataset(
    name: str,
    train: bool = True,
    root: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
) -> ImageDataset:
    """Return a data set by name; ``root`` is a folder that already holds its files.

    Raises:
        ValueError: no such name (the nearest is offered), or ``root`` given for the sample.
    """
    _require_known(name)
    if name in _PUBLISHED:
        return _PUBLISHED[name](root=root, train=train, transform=transform)
    if root is not None:
        raise ValueError(f"{name} comes with the package and takes no root, got {root}")
    return MNISTSample(train=train, transform=transform)


def download(name: str) -> Path:
    """Have a whole data set on this machine, verified; return the folder or file it lies in.

    Raises:
        ValueError: no such name; the nearest is offered.
    """
    _require_known(name)
    return _ALL[name].download()


def _require_known(name: str) -> None:
    if name not in _ALL:
        near = get_close_matches(name.lower(), _ALL, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown data set {name!r}: {hint}There are {', '.join(_ALL)}")
