"""The demo: a small Spikformer and its ANN twin, trained side by side on real digits."""

from __future__ import annotations

import json
import os
import platform
import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from rheobase._paths import write_text
from rheobase.data import MNISTSample
from rheobase.experiments.portrait import portrait
from rheobase.experiments.report import render
from rheobase.experiments.side_by_side import train_side_by_side
from rheobase.models import create_model
from rheobase.train import TrainConfig, Trainer
from rheobase.train.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
)

__all__ = ["run", "run_demo"]

# The key of each network in results.json: what it is called, and its preset.
_NETWORKS = {
    "spiking": ("Spikformer", "spikformer_mnist_2_64"),
    "ordinary": ("ANN twin", "spikformer_ann_mnist_2_64"),
}
_SHOWN = 0  # the test image whose spikes and attention the report shows


@dataclass(frozen=True)
class _Size:
    """How large a demo is.

    Attributes:
        epochs: passes over the training images.
        batch: images per step.
        train: training images used.
        test: test images used.
        save_every: steps between checkpoints.
        overrides: of the two networks' preset.
    """

    epochs: int
    batch: int
    train: int
    test: int
    save_every: int
    overrides: dict[str, Any]


_SIDE = 24  # the stem can halve it thrice
_STEM = {"depth": 1, "image_size": _SIDE, "patch_size": 8}
FULL = _Size(12, 50, 5_000, 1_000, 50, {"dim": 96, **_STEM})
QUICK = _Size(2, 20, 120, 50, 2, {"dim": 16, "heads": 2, **_STEM})


def run_demo(
    folder: str | os.PathLike[str] = "runs/demo",
    seed: int = 0,
    epochs: int | None = None,
    quick: bool = False,
) -> Path:
    """Train both networks, measure them and write a report; an interrupted demo continues.

    Everything random follows from the seed: a run that was killed and run again ends with the
    same weights, bit for bit, as one that was not (same machine, same number of threads).

    Args:
        folder: receives ``report.html``, ``results.json`` and a run folder for each network.
        seed: any integer.
        epochs: passes over the training images; None for the demo's own number.
        quick: a few steps of tiny networks, to see it run.

    Returns:
        the path of the report.

    Raises:
        OSError: the folder cannot be written.
        RuntimeError: another process trains in the folder.
        ValueError: the folder holds a demo with another seed or size.
        KeyboardInterrupt: after Ctrl-C, once both networks have their checkpoint.
    """
    size = QUICK if quick else FULL
    folder = Path(folder)
    test_set = _digits(train=False, count=size.test)
    trainers = _train(folder, seed, epochs or size.epochs, size, test_set)
    results = {
        "command": _command(folder, seed, epochs, quick),
        "seed": seed,
        "quick": quick,
        **_circumstances(),
        **_setting(trainers["spiking"].cfg, size),
        "shown": _shown(test_set),
        "networks": {
            key: {
                "title": title,
                "model": name,
                "epochs": trainers[key].epochs(),
                **portrait(trainers[key].trained, test_set, trainers[key].cfg.data, _SHOWN),
            }
            for key, (title, name) in _NETWORKS.items()
        },
    }
    write_text(folder / "results.json", json.dumps(results, indent=1))
    report = folder / "report.html"
    write_text(report, render(results))
    return report


run = run_demo  # what `rheobase demo` calls


def _train(
    folder: Path, seed: int, epochs: int, size: _Size, test_set: Dataset[Any]
) -> dict[str, Trainer]:
    """Train both networks to the end; return their closed trainers."""
    train_set = _digits(train=True, count=size.train)
    trainers = {}
    with ExitStack() as stack:
        for key, (_, name) in _NETWORKS.items():
            cfg = _config(folder / key, name, seed, epochs, size)
            trainers[key] = Trainer(cfg, _build(cfg), train_set, test_set)
            stack.callback(trainers[key].close)
        train_side_by_side({_NETWORKS[key][0]: trainer for key, trainer in trainers.items()})
    return trainers


def _digits(train: bool, count: int) -> Dataset[Any]:
    return Subset(MNISTSample(train=train, size=_SIDE), range(count))


def _config(folder: Path, model: str, seed: int, epochs: int, size: _Size) -> TrainConfig:
    return TrainConfig(
        run=str(folder),
        seed=seed,
        device="cpu",
        epochs=epochs,
        model=ModelConfig(model, size.overrides),
        data=DataConfig(
            "mnist_sample",
            batch_size=size.batch,
            mean=(0.1307,),
            std=(0.3081,),
            options={"size": _SIDE},
        ),
        augment=AugmentConfig(shift=1),
        loss=LossConfig("tet", tet_lambda=0.0),
        optim=OptimConfig("adamw", lr=2e-3, weight_decay=0.02),
        schedule=ScheduleConfig("cosine", warmup_epochs=1.0),
        checkpoint=CheckpointConfig(every_steps=size.save_every),
        log=LogConfig(progress="never"),
    )


def _build(cfg: TrainConfig) -> nn.Module:
    torch.manual_seed(cfg.seed)
    net = create_model(cfg.model.name, **cfg.model.overrides)
    # Channels last makes the convolutions and poolings of small networks twice as fast on CPUs.
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _circumstances() -> dict[str, Any]:
    packages = ("rheobase", "torch", "numpy", "numba")
    return {
        "versions": {"Python": platform.python_version(), **{p: version(p) for p in packages}},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }


def _setting(cfg: TrainConfig, size: _Size) -> dict[str, Any]:
    optim, schedule = cfg.optim, cfg.schedule
    return {
        "data": {"train": size.train, "test": size.test},
        "overrides": ", ".join(f"{key}={value}" for key, value in size.overrides.items()),
        "recipe": (
            f"{cfg.epochs} epochs, batches of {cfg.data.batch_size}, AdamW, learning rate "
            f"{optim.lr:g} ({schedule.warmup_epochs:g} epoch of warm-up, then cosine), weight "
            f"decay {optim.weight_decay:g}, shifts of up to {cfg.augment.shift} pixel, "
            "cross-entropy of every time step"
        ),
    }


def _shown(test_set: Dataset[Any]) -> dict[str, Any]:
    image, label = test_set[_SHOWN]
    return {"index": _SHOWN, "label": label, "image": image[0].mul(255).round().tolist()}


def _command(folder: Path, seed: int, epochs: int | None, quick: bool) -> str:
    if epochs:
        return f"rheobase.experiments.demo.run_demo({str(folder)!r}, {seed}, {epochs}, {quick})"
    words = ["rheobase", "demo", "--folder", str(folder), "--seed", str(seed)]
    return shlex.join([*words, "--quick"] if quick else words)
