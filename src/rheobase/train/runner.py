"""Train with one call, and what comes out of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from rheobase.train.config import TrainConfig
from rheobase.train.config_file import load_config
from rheobase.train.loop import Trainer
from rheobase.train.progress import Event, ProgressBar, TensorBoard

__all__ = ["Result", "result", "train", "train_from_config"]


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        run: Its folder.
        model: The trained network (the averaged one if the run averages weights).
        steps: Optimiser steps done.
        accuracy: Test accuracy after the last epoch.
        best_accuracy: Highest test accuracy after any epoch.
        epochs: The rows of `epochs.csv`.
    """

    run: Path
    model: nn.Module
    steps: int
    accuracy: float
    best_accuracy: float
    epochs: list[dict[str, float]]


def train(
    cfg: TrainConfig,
    model: nn.Module | None = None,
    train_set: Dataset[Any] | None = None,
    test_set: Dataset[Any] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Train to the end, from the beginning or from where `cfg.run` was interrupted.

    Takes, and raises, what `Trainer` and its `events` do; `on_event` is called with each event.
    """
    with contextlib.ExitStack() as stack:
        trainer = Trainer(cfg, model, train_set, test_set)
        stack.callback(trainer.close)
        bar = ProgressBar(cfg.log, trainer.world.main)
        stack.callback(bar.close)
        listeners: list[Callable[[Event], None]] = [bar]
        if cfg.log.tensorboard and trainer.world.main:
            board = TensorBoard(str(Path(cfg.run) / "tensorboard"), trainer.at.step)
            stack.callback(board.close)
            listeners.append(board)
        if on_event:
            listeners.append(on_event)
        for event in trainer.events():
            for listen in listeners:
                listen(event)
        return result(trainer)


def train_from_config(path: str | Path, overrides: Sequence[str] = ()) -> Result:
    """Train as a YAML file and `key=value` overrides say."""
    return train(load_config(path, overrides))


def result(trainer: Trainer) -> Result:
    """Return what a run has reached so far."""
    epochs = trainer.epochs()
    accuracy = epochs[-1]["accuracy"] if epochs else math.nan
    at, run = trainer.at, Path(trainer.cfg.run)
    return Result(run, trainer.trained, at.step, accuracy, at.best, epochs)
