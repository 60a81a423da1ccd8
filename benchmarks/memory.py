"""Peak memory of a training step, and what of it is kept for the backward pass.

Each measurement is a process of its own, ``python -m benchmarks.memory WORK SYSTEM``: growth of
resident memory over what the network, its optimiser and the batch occupy (VmHWM, reset by
/proc/self/clear_refs just before the step), and the bytes that autograd saves in the forward pass.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import convnet
from benchmarks.harness import THREADS, Record, claim, in_fresh_process, spread
from benchmarks.transformers import CLASSES, PAIRS, SYSTEMS, data, forward, training_step

__all__ = ["convnet_peak", "peak", "zoo_peak"]

SMALL = "spikformer_2_256"


@dataclass(frozen=True)
class _Work:
    """What is measured.

    Attributes:
        title: what the tables call it.
        build: the network of a system.
        data: images and labels, for a batch size.
        batch: samples of the step.
        saved: the goal for what is kept for the backward pass, of SpikingJelly's.
    """

    title: str
    build: Callable[[str], nn.Module]
    data: Callable[[int], tuple[Tensor, Tensor]]
    batch: int = 16
    saved: float | None = None


def _frames(batch: int) -> tuple[Tensor, Tensor]:
    return convnet.frames(16, batch), torch.randint(CLASSES, (batch,))


_WORKS = {key: _Work(pair.title, pair.build, partial(data, pair)) for key, pair in PAIRS.items()}
_WORKS["convnet"] = _Work("Conv net (T 16)", convnet.build, _frames, 4, 0.25)


def peak(rounds: int) -> list[Record]:
    """Of the small Spikformer."""
    return _peak([SMALL], rounds)


def convnet_peak(rounds: int) -> list[Record]:
    """Of the convolutional network."""
    return _peak(["convnet"], rounds)


def zoo_peak(rounds: int) -> list[Record]:
    """Of the transformers in their published sizes."""
    return _peak([key for key in PAIRS if key != SMALL], rounds)


def _peak(keys: Iterable[str], rounds: int) -> list[Record]:
    """Both systems in turn, each in fresh processes."""
    records = []
    for key in keys:
        work = _WORKS[key]
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
        for _ in range(rounds):
            for name in SYSTEMS:
                measured[name].append(in_fresh_process("-m", "benchmarks.memory", key, name))
        title = f"{work.title} training step, batch {work.batch}"
        for what, shown, goal in (
            ("peak", "peak memory", 0.6),
            ("saved", "saved for backward", work.saved),
        ):
            figures = {name: [m[what] for m in rows] for name, rows in measured.items()}
            records.append(
                Record(
                    f"{title}: {shown}",
                    "MiB",
                    {name: spread(values) for name, values in figures.items()},
                    [claim(figures, "rheobase", "SpikingJelly", at_most=goal)],
                )
            )
    return records


def _measure(work: _Work, system: str) -> dict[str, float]:
    torch.manual_seed(0)
    net = work.build(system)
    images, labels = work.data(work.batch)
    # One small step first: kernels compiled, optimiser state there.
    training_step(net, *work.data(1))()
    step = training_step(net, images, labels)
    net.zero_grad()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    growth = _status("VmHWM") - before
    return {"peak": growth, "saved": _saved(net, images)}


def _status(key: str) -> float:
    """A line of /proc/self/status, in MiB."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _saved(net: nn.Module, images: Tensor) -> float:
    """MiB of the storages that the forward pass saves, each counted once, parameters not at all."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = forward(net)(images)
    total = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in parameters)
    del logits
    return total / 2**20


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    print(json.dumps(_measure(_WORKS[sys.argv[1]], sys.argv[2])))
