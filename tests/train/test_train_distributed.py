"""Two processes against one. Starting processes is what costs, so one start serves all checks."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from train_toys import Net, config, images

from rheobase.layers import over_time, repeat
from rheobase.layers.sync_norm import SyncBatchNorm, convert_sync_batchnorm
from rheobase.train import CheckpointError, TrainConfig, evaluate, load_weights, train
from rheobase.train.config import AugmentConfig, OptimConfig, ParallelConfig
from rheobase.train.parallel import average_buffers

TEST = images(31, seed=1)  # odd: the processes get unequal shares


def run(folder: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "augment": AugmentConfig(shift=1, mixup=0.5, cutmix=1.0),
        "optim": OptimConfig(lr=0.01, clip=0.5),
    }
    return config(folder, **(settings | changes))


def batches() -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    return torch.randn(7, 3, 4, dtype=torch.float64), torch.randn(7, 3, 4, dtype=torch.float64)


def norm_pass(norm: nn.Module, part: slice) -> dict[str, Tensor]:
    x, weight = (t[part].clone() for t in batches())
    x.requires_grad_()
    y = norm(x)
    (y * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    grads = {f"grad_{name}": p.grad for name, p in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **grads, **dict(norm.named_buffers())}  # type: ignore[dict-item]


def make_norm() -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(3, momentum=0.3, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    return norm


def check_sync_norm(rank: int, folder: Path) -> None:
    part = slice(0, 2) if rank == 0 else slice(2, 7)  # of different sizes
    torch.save(norm_pass(convert_sync_batchnorm(make_norm()), part), folder / f"norm{rank}.pt")
    images = batches()[0][part]
    norm = convert_sync_batchnorm(make_norm())
    over_time(repeat(images, 3), norm)
    torch.save(norm.state_dict(), folder / f"repeated{rank}.pt")
    half = SyncBatchNorm(3)(torch.randn(4, 3).bfloat16())
    assert half.dtype == torch.bfloat16
    norm = make_norm()
    norm.running_mean.fill_(float(rank))  # type: ignore[union-attr]
    average_buffers(norm)
    assert norm.running_mean.tolist() == [0.5] * 3  # type: ignore[union-attr]


def check_training(rank: int, folder: Path) -> None:
    for strategy in ("ddp", "fsdp"):
        cfg = run(folder / strategy, parallel=ParallelConfig(strategy=strategy))  # type: ignore[arg-type]
        result = train(cfg, Net(rank), images(70), TEST)
        if strategy == "ddp":
            torch.save(result.model.state_dict(), folder / f"ddp{rank}.pt")
    accumulated = run(folder / "accumulated", optim=OptimConfig(name="lamb", accumulate=2))
    train(accumulated, Net(), images(70), TEST)


def check_sharded_mixed_precision(rank: int, folder: Path) -> None:
    parallel = ParallelConfig(strategy="fsdp")
    cfg = run(folder / "bf16", precision="bf16", parallel=parallel, epochs=1)
    train(cfg, Net(dtype=torch.float32), images(70), TEST)
    with pytest.raises(ValueError, match=r"optim\.ema"):
        train(run(folder / "no", parallel=parallel, optim=OptimConfig(ema=0.9)), Net(), TEST, TEST)


def check_sharded_resume(rank: int, folder: Path) -> None:
    """The finished run is loaded again, and refused by another strategy."""
    cfg = run(folder / "fsdp", parallel=ParallelConfig(strategy="fsdp"))
    result = train(cfg, Net(rank + 3), images(70), TEST)
    assert result.steps == 8
    found = evaluate(result.model, TEST, batch_size=4)
    assert int(found.confusion.sum()) == len(TEST)
    if rank == 0:
        assert found.accuracy == result.accuracy


CHECKS: list[Callable[[int, Path], None]] = [
    check_sync_norm,
    check_training,
    check_sharded_mixed_precision,
    check_sharded_resume,
]


def process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for check in CHECKS:
        check(rank, folder)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(["train_killed"])  # imports once for both
    mp.start_processes(process, (port, folder), nprocs=2, start_method="forkserver")
    return folder


def test_sync_norm_equals_one_big_batch(two_processes: Path) -> None:
    ranks = [torch.load(two_processes / f"norm{rank}.pt") for rank in (0, 1)]
    whole = norm_pass(make_norm(), slice(0, 7))
    for name, expected in whole.items():
        if name in ("y", "x"):
            got = torch.cat([rank[name] for rank in ranks])
        elif name.startswith("grad_"):  # summed by the data-parallel wrapper
            got = ranks[0][name] + ranks[1][name]
        else:
            got = ranks[0][name]
            assert torch.equal(got, ranks[1][name])
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_sync_norm_counts_a_repeated_image_over_all_processes(two_processes: Path) -> None:
    norm = make_norm()
    norm(batches()[0].repeat(3, 1, 1))
    for rank in range(2):
        found = torch.load(two_processes / f"repeated{rank}.pt")
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_conversion_keeps_keys_and_parameters() -> None:
    model = Net()
    parameters, keys = list(model.parameters()), list(model.state_dict())
    images_ = torch.randn(2, 1, 8, 8)
    before = model.eval()(images_)
    convert_sync_batchnorm(model)
    assert isinstance(model.norm, SyncBatchNorm) and list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert torch.equal(model(images_), before)  # no process group: plain batch norm

    class Own(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return input

    with pytest.raises(TypeError, match="Own is a batch norm with a forward of its own"):
        convert_sync_batchnorm(nn.Sequential(Own(3)))


def log(folder: Path) -> tuple[Tensor, Tensor]:
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(torch.tensor([float(r[k]) for r in rows]) for k in ("loss", "grad_norm"))  # type: ignore[return-value]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one(two_processes: Path, strategy: str, tmp_path: Path) -> None:
    result = train(run(tmp_path), Net(), images(70), TEST)
    for got, expected in zip(log(two_processes / strategy), log(tmp_path), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=1e-6)
    latest = two_processes / strategy / "checkpoints"
    model = Net(9)
    load_weights(model, latest / (latest / "latest").read_text().strip())
    for name, tensor in result.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
    assert evaluate(model, TEST).accuracy == pytest.approx(result.accuracy, abs=0.04)


def test_replicas_stay_equal(two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"ddp{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accumulation_in_two_processes_equals_one(two_processes: Path, tmp_path: Path) -> None:
    cfg = run(tmp_path, optim=OptimConfig(name="lamb", accumulate=2))
    train(cfg, Net(), images(70), TEST)
    for got, expected in zip(log(two_processes / "accumulated"), log(tmp_path), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=1e-6)


def test_sharded_checkpoint_is_refused_by_an_unsharded_run(two_processes: Path) -> None:
    with pytest.raises(ValueError, match="strategy: 'fsdp' -> 'ddp'"):
        train(run(two_processes / "fsdp"), Net(), images(70), TEST)


def test_damaged_shard_is_named(two_processes: Path) -> None:
    checkpoints = two_processes / "bf16" / "checkpoints"
    checkpoint = checkpoints / (checkpoints / "latest").read_text().strip()
    shard = next((checkpoint / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=shard.name):
        load_weights(Net(), checkpoint)
