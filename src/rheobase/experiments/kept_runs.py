"""Runs that are trained once: each has a folder of its own, named after its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from rheobase._paths import write_text
from rheobase.train import Result, TrainConfig, train

__all__ = ["finished", "reached", "run_folder"]


def run_folder(cfg: TrainConfig, folder: Path) -> Path:
    """Where the run of these settings stands."""
    settings = json.dumps(dataclasses.asdict(dataclasses.replace(cfg, run="")), sort_keys=True)
    return folder / hashlib.sha256(settings.encode()).hexdigest()[:12]


def reached(cfg: TrainConfig, folder: Path) -> tuple[float, Path]:
    """Train, or read what a run of the same settings reached: its last test accuracy, its folder.

    A run that was stopped goes on.
    """
    run = run_folder(cfg, folder)
    done = run / "accuracy.txt"
    if not done.exists():
        write_text(done, f"{finished(cfg, run).accuracy!r}\n")
    return float(done.read_text()), run


def finished(cfg: TrainConfig, run: Path) -> Result:
    """The end of the run in a folder, which is trained to it first where it is not there yet."""
    log = dataclasses.replace(cfg.log, progress="never")
    return train(dataclasses.replace(cfg, run=str(run), log=log))
