"""The folder of a run: its lock, its configuration and its logs."""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rheobase._paths import replacing
from rheobase.train.config import TrainConfig
from rheobase.train.config_file import differences, load_config, save_config

__all__ = ["CsvLog", "RunFolder"]

# What may change between the two halves of a run without changing its numbers.
_FREE = ("run", "device", "log.", "checkpoint.keep")

_held: set[int] = set()


class RunFolder:
    """A run's folder, locked for this process as long as the object is open.

    Raises:
        OSError: The folder cannot be made or written.
        RuntimeError: Another process is training in it (its pid is named).
        ValueError: It holds a run with other settings (they are named).
    """

    def __init__(self, cfg: TrainConfig) -> None:
        self.path = Path(cfg.run)
        self._lock = _lock(self.path)
        try:
            self._adopt(cfg)
        except BaseException:
            self.close()
            raise

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.path / "checkpoints"

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock in _held:
            _held.discard(self._lock)
            # Closing alone leaves it to a child that was forked and has not yet closed its own.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)

    def _adopt(self, cfg: TrainConfig) -> None:
        file = self.path / "config.yaml"
        if (self.checkpoints / "latest").exists() and file.exists():
            changed = differences(load_config(file), cfg, ignore=_FREE)
            if changed:
                raise ValueError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)}); give "
                    "those again to continue it, or choose another folder with run=..."
                )
        save_config(cfg, file)


class CsvLog:
    """Rows of numbers in a CSV file.

    When a run continues from a checkpoint, rows written after it are dropped (those whose `key`
    is above `last`), so the log of an interrupted run equals that of an uninterrupted one.
    """

    def __init__(self, path: Path, columns: list[str], key: str, last: int) -> None:
        self.path, self.columns = path, columns
        kept = [row for row in self.read() if int(row[key]) <= last]
        with replacing(path) as unfinished, open(unfinished, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        self._file = open(path, "a", newline="")  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, columns)

    def read(self) -> list[dict[str, str]]:
        """Return the complete rows written so far."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            rows = [line for line in file if line.endswith("\n")]  # a kill may cut the last one
        return [row for row in csv.DictReader(rows) if None not in row.values()]

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row and hand it to the operating system."""
        self._writer.writerow({key: row[key] for key in self.columns})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OSError(
            error.errno, f"run folder is not writable ({error.strerror}); choose one with run=...",
            str(folder),
        ) from error  # fmt: skip
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise RuntimeError(
            f"another run is training in {folder} (pid {owner}); wait for it, stop it, or choose "
            "another folder with run=..."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    _held.add(descriptor)
    return descriptor


def _release_in_child() -> None:
    """Close inherited locks: a loader worker that outlives a killed run must not hold it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
