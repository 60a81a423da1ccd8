"""Several trainings advanced in turns, under one progress display."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from types import TracebackType
from typing import cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rheobase.train import Event, Trainer

__all__ = ["train_side_by_side"]


def train_side_by_side(trainers: Mapping[str, Trainer]) -> None:
    """Train all to the end, always advancing the one that is furthest behind.

    Each keeps its own checkpoints, so after an interruption each continues where it was; the
    order of turns has no influence on any of them. Ctrl-C saves all before it is raised.

    Args:
        trainers: by the name that the display shows.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once every run has its checkpoint.
    """
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(closing(_events(trainer)))
            for name, trainer in trainers.items()
        }
        done = dict.fromkeys(runs, 0.0)
        display = stack.enter_context(_Display(list(runs)))
        while runs:
            name = min(runs, key=lambda name: done[name])
            event = next(runs[name])
            done[name] = event.step / event.total
            display.show(name, event)
            if event.kind == "end":
                del runs[name]


def _events(trainer: Trainer) -> Generator[Event, None, None]:
    return cast(Generator[Event, None, None], trainer.events())


class _Display:
    """A bar for every run; a line for every epoch, which is all that a log file sees."""

    def __init__(self, names: list[str]) -> None:
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=Console(stderr=True),
        )
        self._tasks = {name: self._bars.add_task(name, loss="") for name in names}
        self._width = max(len(name) for name in names)

    def __enter__(self) -> _Display:
        # On a terminal bars are redrawn; elsewhere they would only be noise at the end.
        self._bars.disable = not self._bars.console.is_terminal
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, name: str, event: Event) -> None:
        """Show one event of one run."""
        task, values = self._tasks[name], event.values
        self._bars.update(task, completed=event.step, total=event.total)
        if "loss" in values:
            self._bars.update(task, loss=f"loss {values['loss']:.3f}")
        if event.kind == "epoch":
            self._bars.console.print(
                f"{name:<{self._width}}  epoch {event.epoch + 1:>2}  "
                f"loss {values['train_loss']:.3f}  test accuracy {values['accuracy']:.2%}",
                highlight=False,
            )
