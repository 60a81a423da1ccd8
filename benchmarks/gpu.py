"""``python -m benchmarks.gpu [--only PART] [FILE.json]``: the Triton kernels on a real GPU.

First every kernel of the fast conformance table and, for a minute, of the pairs, against the
reference. Then LIF forward and backward, large enough to be bound by memory, against a copy and
SpikingJelly's Triton kernel; long sequences of few neurons, in chunks of time against step by step;
every neuron beside SpikingJelly's node; then training steps of networks at ImageNet's size in
bfloat16, ours and, where it is installed, SpikingJelly's of the same weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import neurons
from benchmarks.transformers import (
    LARGE,
    Pair,
    assert_same_function,
    data,
    forward,
    networks_of,
)
from rheobase.neurons import LIF
from rheobase.ops import conformance
from rheobase.train import graphed

CONFORMANCE_SECONDS = 60.0
# T, N, features: 134 million, as in SpikingJelly's own benchmark.
SHAPE = (32, 64, 65536)
BATCH = 32
# Sequences of few neurons: steps, columns.
LONG = ((2048, 128), (2048, 4096), (16384, 128), (16384, 4096))


def main() -> int:
    parts = {
        "conformance": conform,
        "lif": lif,
        "long": long,
        "neurons": every_neuron,
        "networks": networks,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", choices=list(parts), help="run one part")
    parser.add_argument("into", nargs="?", type=Path, help="where to write results as JSON")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    for name, part in parts.items():
        if arguments.only not in (None, name):
            continue
        try:
            results[name] = part()
        except Exception:
            results[name] = {"error": traceback.format_exc(limit=-4)}
        print(name, json.dumps(results[name], indent=1), flush=True)
        if arguments.into is not None:
            arguments.into.write_text(json.dumps(results, indent=1))
    return 0


def conform() -> dict[str, Any]:
    """How many kernels were checked, and those that differ."""
    found: dict[str, Any] = {}
    for level in ("fast", "pairs"):
        started, checked, wrong = time.monotonic(), 0, []
        for row in islice(conformance.run(level), 100_000):  # type: ignore[arg-type]
            if row.backend != "triton":
                break
            checked += 1
            if not row.ok:
                wrong.append(f"{row.spec} {row.dtype} {row.layout}: {row.spikes_differ} spikes, "
                             f"{row.worst_gradient:.1e}")  # fmt: skip
            if time.monotonic() - started > CONFORMANCE_SECONDS:
                break
        found[level] = {"checked": checked, "wrong": wrong}
    return found


def lif() -> dict[str, Any]:
    """Milliseconds of forward and backward in float16, and the share of a copy's bandwidth.

    Called by Python, and replayed as a CUDA graph: the kernels alone.
    """
    x = torch.randn(SHAPE, device="cuda", dtype=torch.float16)
    out = torch.empty_like(x)
    nodes: dict[str, nn.Module] = {"rheobase": LIF(), "SpikingJelly": spikingjelly_lif()}
    add_triton(nodes, "fp16")
    contenders: dict[str, Callable[[], object]] = {"copy": lambda: out.copy_(x)}
    contenders |= {name: both_ways(module, x) for name, module in nodes.items()}
    called = interleaved(contenders)
    replays = {name: replay for name, run in contenders.items() if (replay := replayed(run))}
    times = interleaved(replays)
    # Input and output once; input, output's gradient and input's gradient once more.
    bandwidth = 2 * x.nbytes / times["copy"]
    return {
        "milliseconds, called": called,
        "milliseconds, replayed": times,
        "share of a copy's bandwidth": 5 * x.nbytes / times["rheobase"] / bandwidth,
    }


def long() -> list[dict[str, Any]]:
    """Milliseconds of LIF forward and backward in float32: chunks side by side, step by step."""
    rows = []
    for shape in LONG:
        x = torch.randn(shape, device="cuda")
        module = LIF()
        in_chunks = both_ways(module, x)

        def step_by_step(run: Callable[[], object] = in_chunks) -> None:
            with patch("rheobase.ops.scan.triton.chunks_of", lambda *_: 1):
                run()

        times = interleaved({"in chunks": in_chunks, "step by step": step_by_step})
        rows.append({"steps, neurons": shape, "rate": module(x).mean().item()} | times)
    return rows


def every_neuron() -> dict[str, dict[str, float]]:
    """Milliseconds of each forward and backward in float32, SpikingJelly's node beside it."""
    x = torch.randn(neurons.SHAPE, device="cuda")
    out = torch.empty_like(x)
    found = {}
    for name, (make, make_node) in neurons.pairs().items():
        contenders: dict[str, Callable[[], object]] = {
            "copy": lambda: out.copy_(x),
            "rheobase": both_ways(make().cuda(), x),
            "SpikingJelly": both_ways(make_node().cuda(), x),
        }
        found[name] = interleaved(contenders)
    return found


def both_ways(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """A neuron's forward and backward pass."""
    g = torch.randn_like(x)

    def run() -> None:
        forget(module)
        # A leaf of the stream that captures: another stream's cannot be waited for there.
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(module(leaf), leaf, g)

    return run


def spikingjelly_lif() -> nn.Module:
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")


def add_triton(nets: dict[str, nn.Module], dtype: str) -> None:
    """SpikingJelly's network with its Triton neurons; by itself it takes PyTorch's operations.

    Membranes are then stored in ``dtype`` ("fp16" or "bf16").
    """
    from spikingjelly.activation_based.precision import PrecisionConfig, prepare_model_for_precision

    config = PrecisionConfig(mode=dtype, neuron_storage=dtype)
    net = copy.deepcopy(nets["SpikingJelly"])
    try:
        prepared = prepare_model_for_precision(net, "cuda", config).model
        nets["SpikingJelly, Triton"] = prepared
    except (ImportError, RuntimeError) as error:
        print("no Triton neurons of SpikingJelly:", error)


def replayed(run: Callable[[], object]) -> Callable[[], object] | None:
    """The same work as a CUDA graph, or None where it cannot be one."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        print("no graph:", str(error).splitlines()[0])
        return None
    return graph.replay


def forget(module: nn.Module) -> None:
    """SpikingJelly's neurons must be told to forget their last call."""
    if type(module).__module__.startswith("spikingjelly"):
        from spikingjelly.activation_based import functional

        functional.reset_net(module)


def networks() -> list[dict[str, Any]]:
    """Images a second in training, bfloat16 autocast, and peak memory, of the same networks."""
    rows = []
    for pair in LARGE:
        rows.append(network(pair))
        print(json.dumps(rows[-1], indent=1), flush=True)
    return rows


def network(pair: Pair) -> dict[str, Any]:
    """A training step of one network in both libraries: the same weights, the same function."""
    images, labels = data(pair, BATCH, "cuda")
    nets = networks_of(pair, "cuda")
    try:
        assert_same_function(pair, nets)
        alike = "in float64: outputs to 1e-9, gradients to 1e-6"
    except AssertionError as error:
        alike = f"no: {error}"
    add_triton(nets, "bf16")
    steps, peaks = {}, {}
    for system, net in nets.items():
        steps[system] = step = training_step(net.train(), images, labels)
        step()
        held = torch.cuda.memory_allocated() - state_bytes(net)
        torch.cuda.reset_peak_memory_stats()
        step()
        peaks[system] = (torch.cuda.max_memory_allocated() - held) / 2**30
    try:
        net = graphed(nets["rheobase"], images, "bf16")
        steps["rheobase, CUDA graph"] = training_step(net, images, labels)
    except (AssertionError, RuntimeError) as error:
        print("no graph:", str(error).splitlines()[0])
    times = interleaved(steps, rounds=9)
    return {
        "network": pair.title,
        "the same function": alike,
        "images": BATCH,
        "milliseconds": times,
        "images a second": {n: 1e3 * BATCH / t for n, t in times.items()},
        "peak GiB": peaks,
    }


def state_bytes(net: nn.Module) -> int:
    """Of parameters, their gradients and AdamW's two averages, and buffers."""
    parameters = sum(p.nbytes for p in net.parameters())
    return 4 * parameters + sum(b.nbytes for b in net.buffers())


def training_step(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Forward, cross entropy of the mean over T, backward, AdamW."""
    run = forward(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = run(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def interleaved(contenders: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each, in turns."""
    for run in contenders.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
