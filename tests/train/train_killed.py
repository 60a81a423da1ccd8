"""A run in a process of its own, for tests that kill it: `python train_killed.py FOLDER ...`.

The last process kills itself with SIGKILL during a given step, once: it leaves a mark.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from train_toys import Net, config, images

from rheobase.train import train
from rheobase.train.checkpoint import write_tensors
from rheobase.train.config import AugmentConfig, CheckpointConfig, OptimConfig, ParallelConfig


class Killer:
    """Data that kills its reader when the time has come."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.data, self.mark, self.read = images(70), folder.with_suffix(".mark"), 0
        world = int(os.environ.get("WORLD_SIZE", 1))
        mine = int(os.environ.get("RANK", 0)) == world - 1
        self.at = kill_at * 16 // world if mine else 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.read += 1
        if self.at and self.read >= self.at and not self.mark.exists():
            self.mark.write_text(str(self.read))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data[index]


def main(folder: Path, strategy: str = "ddp", kill_at: int = 0) -> None:
    torch.set_num_threads(1)
    cfg = config(
        folder,
        epochs=3,
        augment=AugmentConfig(shift=1),
        optim=OptimConfig(lr=0.01, clip=1.0, ema=0.0 if strategy == "fsdp" else 0.9),
        parallel=ParallelConfig(strategy=strategy),
        checkpoint=CheckpointConfig(every_steps=3),
    )
    data = Killer(folder, kill_at)
    result = train(cfg, Net(dropout=0.1), data, images(30, seed=1))  # type: ignore[arg-type]
    if strategy == "ddp" and int(os.environ.get("RANK", 0)) == 0:
        write_tensors(folder / "final.safetensors", result.model.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
