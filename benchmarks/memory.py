"""Peak memory of a training step, and what of it is kept for the backward pass.

Each measurement is a process of its own, ``python -m benchmarks.memory PAIR SYSTEM BATCH``: growth
of resident memory over what the network, its optimiser and the batch occupy (VmHWM, reset by
/proc/self/clear_refs just before the step), and the bytes that autograd saves in the forward pass.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import THREADS, Record, claim, in_fresh_process, spread
from benchmarks.transformers import PAIRS, SYSTEMS, Pair, data, forward, training_step

__all__ = ["peak", "zoo_peak"]

BATCH = 16
SMALL = "spikformer_2_256"


def peak(rounds: int) -> list[Record]:
    """Of the small Spikformer."""
    return _peak(SMALL, rounds)


def zoo_peak(rounds: int) -> list[Record]:
    """Of the networks in their published sizes."""
    return [record for key in PAIRS if key != SMALL for record in _peak(key, rounds)]


def _peak(pair: str, rounds: int) -> list[Record]:
    """Both systems in turn, each in fresh processes."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    for _ in range(rounds):
        for name in SYSTEMS:
            found = in_fresh_process("-m", "benchmarks.memory", pair, name, str(BATCH))
            measured[name].append(found)
    records = []
    title = PAIRS[pair].title
    for key, work, goal in (
        ("peak", f"{title} training step, batch {BATCH}: peak memory", 0.6),
        ("saved", f"{title} training step, batch {BATCH}: saved for backward", None),
    ):
        figures = {name: [m[key] for m in rows] for name, rows in measured.items()}
        records.append(
            Record(
                work,
                "MiB",
                {name: spread(values) for name, values in figures.items()},
                [claim(figures, "rheobase", "SpikingJelly", at_most=goal)],
            )
        )
    return records


def _measure(pair: Pair, system: str, batch: int) -> dict[str, float]:
    torch.manual_seed(0)
    net = pair.build(system)
    images, labels = data(pair, batch)
    # One small step first: kernels compiled, optimiser state there.
    training_step(net, images[:1], labels[:1])()
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
    print(json.dumps(_measure(PAIRS[sys.argv[1]], sys.argv[2], int(sys.argv[3]))))
