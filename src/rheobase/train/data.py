"""The training loader: an order keyed by (seed, epoch), cut among processes, resumable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset
from torchdata.stateful_dataloader import StatefulDataLoader

from rheobase.train.seeding import generator

__all__ = ["EpochBatches", "KeyedDataset", "first_samples", "train_loader"]

Key = tuple[int, int]


class EpochBatches(Sampler[list[Key]]):
    """Yield the batches of one process for one epoch, as lists of `(epoch, sample)` keys.

    The order of samples depends on `(seed, epoch)` only. Each global batch is cut into
    `accumulate` micro-batches and each of those into one contiguous piece per process, so the
    samples of a global batch, and their order, are the same for any number of processes.
    The incomplete last batch of an epoch is dropped. Call `set_epoch` before iterating.

    Raises:
        ValueError: Fewer samples than a batch, or a batch that cannot be cut evenly.

    >>> one, other = (EpochBatches(8, 4, seed=0, rank=r, world=2) for r in (0, 1))
    >>> whole = EpochBatches(8, 4, seed=0)
    >>> [a + b for a, b in zip(one, other)] == list(whole)
    True
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        if samples < batch_size:
            raise ValueError(
                f"the training set has {samples} samples, fewer than data.batch_size={batch_size}; "
                "choose a smaller batch"
            )
        if batch_size % (world * accumulate):
            raise ValueError(
                f"data.batch_size={batch_size} cannot be cut evenly among {world} processes x "
                f"optim.accumulate={accumulate}; use a multiple of {world * accumulate}"
            )
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Global batches (optimiser steps) in an epoch."""
        return self.samples // self.batch_size

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        order = torch.randperm(self.samples, generator=generator(self.seed, "order", epoch))
        piece = self.batch_size // (self.world * self.accumulate)
        micro = piece * self.world
        for batch in range(len(self)):
            start = batch * micro + self.rank * piece
            yield [(epoch, sample) for sample in order[start : start + piece].tolist()]


class KeyedDataset(Dataset[tuple[Tensor, int | Tensor]]):
    """A map-style dataset asked by `(epoch, sample)`, so that augmentation knows its key.

    A label is one number, or a tensor of them: one at every word of a text.
    """

    def __init__(
        self, dataset: Dataset[Any], augment: Callable[[Tensor, int, int], Tensor]
    ) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Tensor, int | Tensor]:
        epoch, sample = key
        image, label = self.dataset[sample]
        of_words = isinstance(label, Tensor) and label.shape == image.shape
        return self.augment(image, epoch, sample), label if of_words else int(label)


def first_samples(dataset: Dataset[Any], count: int) -> Dataset[Any]:
    """Return the first `count` samples of a data set, or all of it for 0.

    Raises:
        ValueError: The data set has fewer.

    >>> len(first_samples([5, 6, 7], 2)), len(first_samples([5, 6, 7], 0))
    (2, 3)
    """
    assert isinstance(dataset, Sized)
    if count > len(dataset):
        raise ValueError(
            f"data.train_images={count}, but the training set has {len(dataset)} samples; "
            "give at most as many, or 0 for all"
        )
    return Subset(dataset, range(count)) if count else dataset


def train_loader(
    dataset: KeyedDataset, batches: EpochBatches, workers: int, pin_memory: bool
) -> StatefulDataLoader:
    """Return a loader whose `state_dict` resumes in the middle of an epoch.

    To resume, call `batches.set_epoch` with the epoch of the state before `load_state_dict`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11's own call
        return StatefulDataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
        )
