"""What a training step of a recipe costs, measured in a process of its own."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from rheobase.models import create_model
from rheobase.train import TrainConfig, load_config

__all__ = ["training_cost"]

_REPEATS = 7


def training_cost(config: Path) -> dict[str, float]:
    """Milliseconds and MiB of a training step of a recipe on this machine's CPU.

    A new process is started for it. Forward, backward and update of one batch of random images are
    timed: the median of seven, after one to compile. The memory is the growth of that process over
    what network, optimiser and batch occupy.

    Args:
        config: a YAML file that `rheobase.train.load_config` reads; its data are not touched.

    Raises:
        RuntimeError: the process failed; its last words are told.
    """
    command = [sys.executable, "-m", "rheobase.experiments.zoo_cost", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr[-500:]}")
    return cast(dict[str, float], json.loads(ended.stdout))


def _measure(cfg: TrainConfig) -> dict[str, float]:
    torch.manual_seed(cfg.seed)
    net = create_model(cfg.model.name, **cfg.model.overrides)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    config: Any = net.config
    shape = (cfg.data.batch_size, config.channels, config.image_size, config.image_size)
    images = torch.randn(shape)
    labels = torch.zeros(cfg.data.batch_size, dtype=torch.long)
    _step(net, optimizer, images[:2], labels[:2])
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _status("VmRSS")
    _step(net, optimizer, images, labels)
    memory = _status("VmHWM") - before
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        _step(net, optimizer, images, labels)
        times.append(time.perf_counter() - start)
    return {"step_ms": 1e3 * statistics.median(times), "memory_mib": memory}


def _step(
    net: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> None:
    loss = F.cross_entropy(net(images).mean(0), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _status(key: str) -> float:
    """A line of /proc/self/status, in MiB."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(_measure(load_config(sys.argv[1]))))
