"""Architecture searches: one entry, settings that run in minutes, and the recipe they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rheobase._errors import unknown_name
from rheobase.data import get_dataset
from rheobase.experiments.search_kept import Kept
from rheobase.neurons import Neuron
from rheobase.train import TrainConfig
from rheobase.train.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
)

__all__ = ["METHODS", "Found", "Images", "batches", "load_images", "search", "seen_by_neurons"]

METHODS = ("snasnet", "autosnn", "supernet", "autost")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Images:
    """Images ``[N, C, H, W]`` in memory, and their labels ``[N]``."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def split(self, share: float) -> tuple[Images, Images]:
        """The first ``share`` of them, and the others."""
        n = int(share * len(self))
        first = Images(self.images[:n], self.labels[:n])
        return first, Images(self.images[n:], self.labels[n:])


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        model: the preset that the found network changes.
        overrides: how, for `rheobase.models.create_model`.
        score: what the search maximised, at this network.
        scores: the best score after every round.
        loss: what trains it: "mse" where its outputs are firing rates.
    """

    model: str
    overrides: dict[str, Any]
    score: float
    scores: list[float] = field(default_factory=list)
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"

    def recipe(self, data: str, epochs: int = 10) -> TrainConfig:
        """A training run of the found network."""
        return TrainConfig(
            run=f"runs/searched_{self.model}",
            epochs=epochs,
            model=ModelConfig(self.model, self.overrides),
            data=DataConfig(data, batch_size=64),
            loss=LossConfig(self.loss),
            optim=OptimConfig("adamw", lr=2e-3, weight_decay=0.02),
            schedule=ScheduleConfig("cosine", warmup_epochs=1.0),
        )


def search(
    method: str,
    data: str = "mnist_sample",
    *,
    images: int = 2000,
    quick: bool = False,
    seed: int = 0,
    report: Report = print,
    kept: str | Path | None = None,
) -> Found:
    """Search an architecture on real images, with settings that take minutes on a CPU.

    Args:
        method: "snasnet", "autosnn", "supernet" or "autost".
        data: a data set of `rheobase.data`.
        images: how many of its training images are used.
        quick: a few seconds' worth, to see it run.
        seed: everything random follows from it.
        report: called with each line of progress.
        kept: a file for what is done so far; a search that was stopped goes on from it, to the
            same result, and deletes it at its end. AutoST's, a few seconds, starts anew.

    Raises:
        ValueError: unknown method or data set; the nearest name is offered; what is kept is of
            another search.
    """
    from rheobase.experiments.search_autosnn import search_autosnn
    from rheobase.experiments.search_autost import search_autost
    from rheobase.experiments.search_snasnet import search_snasnet
    from rheobase.experiments.search_supernet import search_supernet

    if method not in METHODS:
        raise ValueError(unknown_name("search", method, METHODS))
    settings = {"method": method, "data": data, "images": images, "quick": quick, "seed": seed}
    file = Kept(Path(kept) if kept is not None else None, settings)
    seen = load_images(data, 200 if quick else images, seed)
    torch.manual_seed(seed)
    if method == "snasnet":
        found = search_snasnet(seen, candidates=4 if quick else 60, report=report, kept=file)
    elif method == "autosnn":
        rounds, pool, epochs = (2, 6, 1) if quick else (6, 12, 8)
        found = search_autosnn(
            seen, rounds=rounds, pool=pool, epochs=epochs, lr=5e-3, batch=32, report=report,
            kept=file,
        )  # fmt: skip
    elif method == "autost":
        found = search_autost(seen, rounds=2 if quick else 20, seed=seed, report=report)
    else:
        found = search_supernet(seen, epochs=1 if quick else 8, report=report, kept=file)
    file.drop()
    return found


def load_images(name: str, count: int, seed: int = 0) -> Images:
    """A random part of a data set's training images, in memory.

    Raises:
        ValueError: no such data set.
    """
    dataset: Dataset[Any] = get_dataset(name, train=True)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    pairs = [dataset[i] for i in order[:count].tolist()]
    return Images(
        torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])
    )


def batches(data: Images, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order, in batches; the incomplete last one is dropped."""
    order = torch.randperm(len(data))
    for start in range(0, len(data) - size + 1, size):
        chosen = order[start : start + size]
        yield data.images[chosen], data.labels[chosen]


@contextmanager
def seen_by_neurons(net: nn.Module, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Show every neuron's spikes ``[T, N, ...]`` to ``see``, each time it fires."""

    def hook(module: nn.Module, args: Any, output: Tensor | tuple[Tensor, Tensor]) -> None:
        see((output[0] if isinstance(output, tuple) else output).detach())

    neurons = (module for module in net.modules() if isinstance(module, Neuron))
    handles = [neuron.register_forward_hook(hook) for neuron in neurons]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
