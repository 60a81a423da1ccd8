"""Several processes: torchrun, DDP, FSDP2, and what must be the same on all of them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from rheobase.layers.sync_norm import convert_sync_batchnorm
from rheobase.train.config import ParallelConfig, TrainConfig

__all__ = [
    "World",
    "average_buffers",
    "average_gradients",
    "gradient_sync",
    "reduce_mean",
    "start_world",
    "wrap",
]


@dataclass(frozen=True)
class World:
    """This process's place among all: `rank` of `size`, computing on `device`.

    `owner` says that `start_world` opened the process group, which `close` then closes.
    """

    rank: int
    size: int
    device: torch.device
    owner: bool = False

    @property
    def main(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.rank == 0

    def close(self) -> None:
        """Leave the process group, if `start_world` joined it."""
        if self.owner and dist.is_initialized():
            dist.destroy_process_group()


def start_world(device: str) -> World:
    """Join the processes that `torchrun` started, if it did, and choose the device.

    Raises:
        ValueError: An unknown device, or a GPU was asked for and there is none.
    """
    chosen = _device(device)
    if dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size(), chosen)
    if "RANK" not in os.environ:
        return World(0, 1, chosen)
    _join("gloo" if chosen.type == "cpu" else "cpu:gloo,cuda:nccl")
    return World(dist.get_rank(), dist.get_world_size(), chosen, owner=True)


def wrap(model: nn.Module, world: World, cfg: TrainConfig) -> nn.Module:
    """Return `model` made ready for `world.size` processes; its parameters stay reachable.

    Raises:
        ValueError: A combination that FSDP2 cannot serve, or a model with parameters that are
            single numbers (a PLIF's time constant), which it cannot shard.
    """
    if cfg.parallel.strategy == "fsdp":
        _check_fsdp(cfg)
    if world.size == 1 and not dist.is_initialized():
        return model
    if cfg.parallel.sync_batchnorm:
        model = convert_sync_batchnorm(model)
    if cfg.parallel.strategy == "fsdp":
        return _shard(model, world, cfg.precision)
    return _replicate(model, world, cfg.parallel)


@contextlib.contextmanager
def gradient_sync(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Exchange gradients in this backward pass only if `enabled` (the last micro-batch)."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)
        yield
    elif isinstance(model, DistributedDataParallel) and not enabled:
        with model.no_sync():
            yield
    else:
        yield


@torch.no_grad()
def average_buffers(model: nn.Module) -> None:
    """Give every process the mean of all processes' floating buffers.

    Without synchronised batch norm each process has its own running statistics; a checkpoint or
    an evaluation would otherwise use those of an arbitrary one.
    """
    if not dist.is_initialized():
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(dist.get_world_size())


@torch.no_grad()
def average_gradients(model: nn.Module, parts: int) -> None:
    """Divide gradients by ``parts`` and average them over all processes.

    For what fills gradients without the backward pass that DDP watches.
    """
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = reduce_mean(parameter.grad / parts)


def reduce_mean(values: Tensor) -> Tensor:
    """Return the mean of `values` over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def _join(backend: str) -> None:
    """Open the process group that torchrun's environment variables describe.

    On one machine torchrun keeps one store for all restarts. Unless each attempt has keys of its
    own, a restarted process may read the address of a dead one there. On several machines the
    restart counts may differ; there set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        dist.init_process_group(backend)
        return
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={name!r}: PyTorch {torch.__version__} sees no GPU here; "
            "use device=cpu (or run `rheobase doctor`)"
        )
    index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"device cuda:{index}: this machine has {torch.cuda.device_count()} GPU(s), "
            "counted from cuda:0"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _check_fsdp(cfg: TrainConfig) -> None:
    if not dist.is_initialized():
        raise ValueError(
            "parallel.strategy=fsdp needs several processes: torchrun --nproc-per-node=N -m "
            "rheobase.cli train CONFIG.yaml"
        )
    if cfg.optim.ema:
        raise ValueError("optim.ema cannot average sharded parameters; set optim.ema=0 with fsdp")
    if cfg.precision == "fp16":
        raise ValueError("precision=fp16 is not scaled under fsdp; use precision=bf16")


def _replicate(model: nn.Module, world: World, cfg: ParallelConfig) -> nn.Module:
    devices = [world.device.index] if world.device.type == "cuda" else None
    with warnings.catch_warnings():
        # Buffers are averaged where they matter (average_buffers). PyTorch 2.13 warns that the
        # option gets another name, which older ones do not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        return DistributedDataParallel(
            model,
            device_ids=devices,
            broadcast_buffers=False,
            find_unused_parameters=cfg.find_unused_parameters,
        )


def _shard(model: nn.Module, world: World, precision: str) -> nn.Module:
    """Shard every element of every ModuleList (a network's blocks) and then the rest.

    What says ``one_group`` (a reversible sequence) is one group: it reads its parts' parameters
    where FSDP2 does not expect it. In mixed precision it and each batch norm stay in float32: the
    norm's buffers are float32, and PyTorch's batch norm takes no mixture.

    Raises:
        ValueError: a parameter is a single number, which FSDP2 cannot shard.
    """
    numbers = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    if numbers:
        raise ValueError(
            f"parallel.strategy=fsdp cannot shard parameters that are single numbers, such as "
            f"{numbers[0]} ({len(numbers)} in all); use parallel.strategy=ddp"
        )
    for tensor in model.state_dict().values():  # DDP does this by itself
        dist.broadcast(tensor, src=0)
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, output_dtype=low) if low else policy
    whole = [m for m in model.modules() if getattr(m, "one_group", False)]
    inside = {part for group in whole for part in group.modules()}
    others = [m for m in model.modules() if m not in inside]
    norms = [m for m in others if low and isinstance(m, _BatchNorm)]
    for module in [*norms, *whole]:
        fully_shard(module, mesh=mesh, mp_policy=full)
    blocks = [block for m in others if isinstance(m, nn.ModuleList) for block in m]
    for block in reversed(blocks):  # the inner ones first
        done = isinstance(block, FSDPModule | nn.ModuleList)  # or its elements are
        if not done and any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model
