"""The data sets by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rheobase._errors import unknown_name
from rheobase.data.cifar10 import CIFAR10
from rheobase.data.cifar100 import CIFAR100
from rheobase.data.event_sets import CIFAR10DVS, DVS128Gesture
from rheobase.data.imagenet import ImageNet
from rheobase.data.images import DatasetInfo, LabelledImages, Transform
from rheobase.data.mnist import MNIST, FashionMNIST
from rheobase.data.sample import MNISTSample
from rheobase.data.sequences import Sequences
from rheobase.data.texts import Characters, MovieReviews, ReviewCharacters, Sentences

__all__ = ["download", "frames_of", "get_dataset", "list_datasets", "words_of_sample"]

_ALL: dict[str, type[LabelledImages]] = {
    c.info.name: c
    for c in (
        MNISTSample,
        MNIST,
        FashionMNIST,
        CIFAR10,
        CIFAR100,
        ImageNet,
        CIFAR10DVS,
        DVS128Gesture,
        Sequences,
        MovieReviews,
        ReviewCharacters,
        Sentences,
        Characters,
    )
}


def list_datasets() -> list[DatasetInfo]:
    """Return what is known of every data set.

    >>> [info.name for info in list_datasets()][:5]
    ['mnist_sample', 'mnist', 'fashion_mnist', 'cifar10', 'cifar100']
    """
    return [dataset.info for dataset in _ALL.values()]


def get_dataset(
    name: str,
    train: bool = True,
    root: str | os.PathLike[str] | None = None,
    transform: Transform | None = None,
    **options: Any,
) -> LabelledImages:
    """Return a data set by name; ``root`` is a folder that already holds its files.

    Args:
        name: one of `list_datasets`.
        train: the training or the test samples.
        root: folder of the user's; what no package registry has needs one.
        transform: applied to each sample.
        options: the data set's own, such as ``frames=16`` of event recordings.

    Raises:
        ValueError: no such name (the nearest is offered), ``root`` given for the sample, or an
            option that the data set does not have.
        FileNotFoundError: the data set is not there, and cannot be fetched.
    """
    _require_known(name)
    dataset: Callable[..., LabelledImages] = _ALL[name]
    known = inspect.signature(dataset).parameters
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of {name}", option, known))
    if root is not None:
        if "root" not in known:
            raise ValueError(f"{name} comes with the package and takes no root, got {root}")
        options["root"] = root
    return dataset(train=train, transform=transform, **options)


def frames_of(name: str, **options: Any) -> int | None:
    """How many frames a recording of a data set is cut into; None: it has none, or not by option.

    Args:
        name: one of `list_datasets`.
        options: as for `get_dataset`.

    Raises:
        ValueError: no such name; the nearest is offered.

    >>> frames_of("cifar10dvs", frames=10), frames_of("cifar10")
    (10, None)
    """
    return _number(name, "frames", options)


def words_of_sample(name: str, **options: Any) -> int | None:
    """How many words (or characters) a sample of a data set has; None: it has no texts.

    Args and errors are those of `frames_of`.

    >>> words_of_sample("review_characters", length=128), words_of_sample("cifar10")
    (128, None)
    """
    return _number(name, "length", options)


def _number(name: str, option: str, options: Mapping[str, Any]) -> int | None:
    """A data set's option as given, or its default; None: it has no such option."""
    _require_known(name)
    known = inspect.signature(_ALL[name]).parameters
    return int(options.get(option, known[option].default)) if option in known else None


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
