"""What a run must remember to continue bit for bit, whole or sharded over processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from rheobase._weights import CheckpointError, read_state, read_tensors
from rheobase.train.checkpoint import Checkpoints, verify, write_state, write_tensors

__all__ = ["TrainState", "load_weights"]

MODEL, EMA, STATE, SHARDS = "model.safetensors", "ema.safetensors", "state.pt", "shards"
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


@dataclass
class TrainState:
    """The parts of a run that change while it trains.

    Random numbers need no place here: every draw is keyed by (seed, epoch, sample) or by
    (seed, step), see `seeding`.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    sharded: bool

    def save(self, checkpoints: Checkpoints, progress: dict[str, Any], best: bool) -> None:
        """Save a checkpoint; every process calls this.

        Raises:
            OSError: Disk full or unwritable; the previous checkpoint stays current.
        """
        name = f"epoch-{progress['epoch']:05d}-step-{progress['step']:09d}"
        if self.sharded:
            self._save_shards(checkpoints, name, progress, best)
        elif not dist.is_initialized() or dist.get_rank() == 0:
            checkpoints.save(name, lambda folder: self._write(folder, progress), best)

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Restore everything from `checkpoint` and return the `progress` saved with it.

        Raises:
            CheckpointError: The checkpoint is damaged or of another kind of run.
        """
        verify(checkpoint)
        state = read_state(checkpoint / STATE)
        if self.sharded != (checkpoint / SHARDS).exists():
            kind = "unsharded" if self.sharded else "sharded (fsdp)"
            raise CheckpointError(f"{checkpoint} is {kind}; keep parallel.strategy as it was")
        if self.sharded:
            self._read_shards(checkpoint / SHARDS)
        else:
            self.model.load_state_dict(read_tensors(checkpoint / MODEL))
            self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(read_tensors(checkpoint / EMA))
            self.ema.n_averaged.fill_(state["ema_updates"])
        self.scaler.load_state_dict(state["scaler"])
        self.scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(
            self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True
        ):
            group["lr"] = rate
        progress = state["progress"]
        assert isinstance(progress, dict)
        return progress

    def _small(self, progress: dict[str, Any]) -> dict[str, Any]:
        return {
            "progress": progress,
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
        }

    def _write(self, folder: Path, progress: dict[str, Any]) -> None:
        write_tensors(folder / MODEL, self.model.state_dict())
        if self.ema is not None:
            write_tensors(folder / EMA, self.ema.module.state_dict())
        write_state(
            folder / STATE, self._small(progress) | {"optimizer": self.optimizer.state_dict()}
        )

    def _save_shards(
        self, checkpoints: Checkpoints, name: str, progress: dict[str, Any], best: bool
    ) -> None:
        """Let every process write its part into one folder, as safetensors."""
        main = dist.get_rank() == 0
        if main:
            checkpoints.begin(name)
        dist.barrier()
        folder = checkpoints.unfinished(name)
        writer = HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True)
        try:
            save_shards(self._tensors(), storage_writer=writer)
        except CheckpointException as error:  # a BaseException: nobody else would catch it
            raise OSError(f"checkpoint {name} not saved, the previous one is intact: "
                          f"{error}") from error  # fmt: skip
        if main:
            write_state(folder / STATE, self._small(progress))
            checkpoints.commit(name, best)
        dist.barrier()

    def _read_shards(self, folder: Path) -> None:
        tensors = self._tensors()
        try:
            load_shards(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
        except CheckpointException as error:
            raise CheckpointError(f"{folder} does not fit this run: {error}") from error
        model: dict[str, Any] = {
            k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")
        }
        set_model_state_dict(self.model, model)
        optim: dict[str, Any] = dict(
            get_optimizer_state_dict(self.model, self.optimizer, options=_FLAT)
        )
        optim |= {k.removeprefix("optim."): t for k, t in tensors.items() if k.startswith("optim.")}
        set_optimizer_state_dict(self.model, self.optimizer, optim, options=_FLAT)

    def _tensors(self) -> dict[str, Tensor]:
        """Return this process's view of all tensors of model and optimiser, by unique name."""
        model = get_model_state_dict(self.model)
        optim = get_optimizer_state_dict(self.model, self.optimizer, options=_FLAT)
        named: dict[str, Any] = {f"model.{k}": v for k, v in model.items()}
        named |= {f"optim.{k}": v for k, v in optim.items()}
        return {k: v for k, v in named.items() if isinstance(v, Tensor)}


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint's weights, averaged ones if it has them, into an unsharded model.

    Raises:
        CheckpointError: The checkpoint is damaged.
        ValueError: The weights are those of a network of other settings.
    """
    verify(checkpoint)
    if (checkpoint / SHARDS).exists():
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        reader = HuggingFaceStorageReader(str(checkpoint / SHARDS))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as asked
            load_shards(tensors, storage_reader=reader, no_dist=True)
        return
    averaged = checkpoint / EMA
    weights = read_tensors(averaged if averaged.exists() else checkpoint / MODEL)
    _check_fit(model, weights, checkpoint)
    model.load_state_dict(weights)


def _check_fit(model: nn.Module, weights: dict[str, Tensor], checkpoint: Path) -> None:
    """Refuse weights of a network of other settings, another number of time steps for one."""
    there = {name: list(tensor.shape) for name, tensor in weights.items()}
    here = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [n for n in {**here, **there} if here.get(n) != there.get(n)]
    if not wrong:
        return
    name = wrong[0]
    found, wanted = (f"is {sizes[name]}" if name in sizes else "is not" for sizes in (there, here))
    raise ValueError(
        f"the weights of {checkpoint} are of a network of other settings: {name} {found} there and "
        f"{wanted} in this {type(model).__name__} (tensors that differ: {len(wrong)}). What has "
        "parameters of every time step (BNTT, TEBN, attention over time, PSN, ...) takes only the "
        "T that it was trained for"
    )
