"""A progress bar, a CSV and TensorBoard: three listeners to a run's events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rheobase.train.config import LogConfig

__all__ = ["Event", "ProgressBar", "TensorBoard"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: `start` (after a possible resume), `step`, `epoch` (evaluated), `end`.
        step: Optimiser steps done.
        total: Optimiser steps of the whole run.
        epoch: The epoch it belongs to, from 0.
        values: Numbers. `step`: loss, lr, grad_norm. `epoch`: train_loss, test_loss, accuracy,
            top5, lr, seconds.
    """

    kind: Literal["start", "step", "epoch", "end"]
    step: int
    total: int
    epoch: int
    values: dict[str, float]


class ProgressBar:
    """Shows a run's events on the terminal; silent where the configuration says so."""

    def __init__(self, cfg: LogConfig, main: bool) -> None:
        console = Console(stderr=True)
        shown = {"auto": console.is_terminal, "always": True, "never": False}[cfg.progress]
        self._text = ""
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=console, disable=not (shown and main),
        )  # fmt: skip
        self._task = self._bar.add_task("training")

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "start":
            self._bar.start()
        if event.kind == "epoch":
            self._text = f"accuracy {event.values['accuracy']:.2%}"
        loss = f"loss {event.values['loss']:.3f}" if "loss" in event.values else ""
        words = [f"epoch {event.epoch + 1}", loss, self._text]
        self._bar.update(
            self._task,
            total=event.total,
            completed=event.step,
            description="  ".join(word for word in words if word),
        )

    def close(self) -> None:
        """Leave the last state on the terminal."""
        self._bar.stop()


class TensorBoard:
    """Writes a run's events for TensorBoard.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: str, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "log.tensorboard=true needs TensorBoard: pip install rheobase[tensorboard]"
            ) from error
        self._writer = SummaryWriter(folder, purge_step=step or None)  # type: ignore[no-untyped-call,unused-ignore]

    def __call__(self, event: Event) -> None:
        """Write one event's numbers."""
        for name, value in event.values.items():
            self._writer.add_scalar(f"{event.kind}/{name}", value, event.step)  # type: ignore[no-untyped-call,unused-ignore]

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()  # type: ignore[no-untyped-call,unused-ignore]
