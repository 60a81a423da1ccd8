"""Accuracy of a network, at every number of time steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from rheobase.train.augment import normalize
from rheobase.train.checkpoint import Checkpoints
from rheobase.train.config import DataConfig, TrainConfig
from rheobase.train.config_file import load_config
from rheobase.train.diagnose import check_images, check_labels, time_first
from rheobase.train.parallel import start_world
from rheobase.train.state import load_weights

__all__ = ["Evaluation", "autocast", "evaluate", "evaluate_run", "load_run"]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        accuracy: Share of samples whose mean logits over all T steps are highest at the label.
        top5: Share of samples with the label among the five highest (1.0 for under 6 classes).
        loss: Cross-entropy of the mean logits.
        accuracy_at: `accuracy_at[t-1]` is the accuracy of the mean of the first t steps.
        confusion: Counts `[classes, classes]`, row = label, column = answer; None of more than
            2,000 classes (the words of a language model), of which they would fill the memory.
        samples: How many were counted.
    """

    accuracy: float
    top5: float
    loss: float
    accuracy_at: list[float]
    confusion: Tensor | None
    samples: int

    def summary(self) -> dict[str, float]:
        """Return the scalars by name, for printing."""
        curve = {f"accuracy_T{t}": value for t, value in enumerate(self.accuracy_at, 1)}
        return {
            "accuracy": self.accuracy,
            "top5": self.top5,
            "loss": self.loss,
            "samples": float(self.samples),
        } | curve


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset[Any],
    batch_size: int = 256,
    *,
    data: DataConfig | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> Evaluation:
    """Classify every sample of `dataset` and count; every word, where each has a label.

    Under torchrun each process takes every world-size-th sample and the counts are added up.

    Args:
        model: Returns logits `[T, N, classes]`; left in the mode (train/eval) it was in.
        dataset: Map-style, of `(image, label)`.
        batch_size: Samples at once in each process.
        data: Whose `mean` and `std` normalise the images, and whose `workers` load them.
        device: Where the model is.
        precision: `fp32`, `bf16` or `fp16` (autocast).

    Raises:
        ValueError: Empty dataset, or labels that the model has no output for.
    """
    data = data or DataConfig()
    device = torch.device(device)
    metrics: _Metrics | None = None
    training = model.training
    model.eval()
    for images, labels, real in _batches(dataset, batch_size, data):
        check_images(images)
        with autocast(device, precision):
            images, labels = time_first(images.to(device), labels)
            logits = model(images).float()
        check_labels(labels, logits.shape[-1])
        logits, labels = logits[:, :real], labels[..., :real].to(device)
        if labels.dim() == 2:  # every word is a sample
            logits, labels = logits.flatten(0, 1).unsqueeze(0), labels.flatten()
        metrics = metrics or _Metrics(logits.shape[0], logits.shape[-1], device)
        metrics.update(logits, labels)
    model.train(training)
    assert metrics is not None
    return metrics.result()


def evaluate_run(
    path: str | Path,
    device: str = "auto",
    best: bool = False,
    settings: Sequence[str] = (),
) -> dict[str, float]:
    """Evaluate a run's newest (or `best`) checkpoint, or one checkpoint, on its test images.

    A model's file (`rheobase.models.save_model`) has no run: `settings` say which data it is for.

    Args:
        path: Folder of a run or of a checkpoint, or a `.safetensors` file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        best: The best checkpoint instead of the newest.
        settings: `section.key=value` changes of the run's settings, or of the defaults.

    Raises:
        FileNotFoundError: No run or no checkpoint there.
        CheckpointError: The checkpoint is damaged.
    """
    from rheobase.data import get_dataset

    model, cfg = load_run(path, best, settings)
    target = start_world(device).device
    test_set = get_dataset(cfg.data.name, train=False, root=cfg.data.root, **cfg.data.options)
    found = evaluate(
        model.to(target), test_set, data=cfg.data, device=target, precision=cfg.precision
    )
    return found.summary()


def load_run(
    path: str | Path, best: bool = False, settings: Sequence[str] = ()
) -> tuple[nn.Module, TrainConfig]:
    """Return the network of a run's newest (or `best`) checkpoint, or of one, and its settings.

    A model's file is loaded with the default settings; `settings` are changed in either case.

    Raises:
        FileNotFoundError: No run or no checkpoint there.
        CheckpointError: The checkpoint is damaged.
    """
    from rheobase.models import create_model, load_model

    if Path(path).suffix == ".safetensors" and Path(path).is_file():
        return load_model(path), load_config(None, settings)
    cfg, checkpoint = _locate(Path(path), best, settings)
    model = create_model(cfg.model.name, **cfg.model.overrides)
    load_weights(model, checkpoint)
    return model, cfg


def autocast(
    device: torch.device, precision: str, cache: bool = True
) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context of a precision name; `fp32` changes nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    low = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, low, cache_enabled=cache)


_MOST_CONFUSED = 2000


class _Metrics:
    """The counts behind an `Evaluation`; torchmetrics adds them up over processes."""

    def __init__(self, steps: int, classes: int, device: torch.device) -> None:
        def accuracy(top_k: int) -> MulticlassAccuracy:
            return MulticlassAccuracy(classes, top_k=top_k, average="micro").to(device)

        self.at = [accuracy(1) for _ in range(steps)]
        self.top5 = accuracy(min(5, classes))
        few = classes <= _MOST_CONFUSED
        self.confusion = MulticlassConfusionMatrix(classes).to(device) if few else None
        self.loss = torch.zeros(2, dtype=torch.float64)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        if not len(labels):
            return
        steps = torch.arange(1, len(logits) + 1, device=logits.device).view(-1, 1, 1)
        means = logits.cumsum(0) / steps
        for metric, mean in zip(self.at, means, strict=True):
            metric.update(mean, labels)
        self.top5.update(means[-1], labels)
        if self.confusion is not None:
            self.confusion.update(means[-1], labels)
        loss = F.cross_entropy(means[-1], labels, reduction="sum")
        self.loss += torch.tensor([float(loss), len(labels)], dtype=torch.float64)

    def result(self) -> Evaluation:
        if dist.is_initialized():
            dist.all_reduce(self.loss)
        curve = [_share(metric) for metric in self.at]
        return Evaluation(
            accuracy=curve[-1],
            top5=_share(self.top5),
            loss=float(self.loss[0] / self.loss[1]),
            accuracy_at=curve,
            confusion=None if self.confusion is None else self.confusion.compute().cpu(),
            samples=int(self.loss[1]),
        )


def _share(metric: MulticlassAccuracy) -> float:
    return round(float(metric.compute()), 6)  # torchmetrics divides in float32


def _batches(
    dataset: Dataset[Any], batch_size: int, data: DataConfig
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield this process's images, labels and how many of them count.

    Every process yields equally many batches, because sharded models communicate in each forward
    pass; where samples run out, the first ones are repeated and do not count.
    """
    assert isinstance(dataset, Sized)
    samples = len(dataset)
    if samples == 0:
        raise ValueError("the dataset to evaluate is empty")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    share = -(-samples // world)
    indices = [(rank + i * world) % samples for i in range(share)]
    counted = len(range(rank, samples, world))
    loader = DataLoader(dataset, batch_size, sampler=indices, num_workers=data.workers)
    for start, (images, labels) in zip(range(0, share, batch_size), loader, strict=True):
        yield normalize(images, data), labels, max(0, min(len(labels), counted - start))


def _locate(path: Path, best: bool, settings: Sequence[str]) -> tuple[TrainConfig, Path]:
    run = path if (path / "config.yaml").exists() else path.parent.parent
    if not (run / "config.yaml").exists():
        raise FileNotFoundError(f"{path} is neither a run folder (config.yaml) nor a checkpoint")
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoint = path if run != path else checkpoints.best() if best else checkpoints.latest()
    if checkpoint is None:
        raise FileNotFoundError(f"{path} has no checkpoint yet")
    return load_config(run / "config.yaml", settings), checkpoint
