"""``python -m benchmarks [--only SUITE] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import THREADS
from benchmarks.report import load, render, save, write_between_markers

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "benchmarks" / "results"
_PAGE = _ROOT / "docs" / "benchmarks.md"

# Suite -> function ``(rounds) -> list[Record]``, and the rounds of a full and of a quick run.
_SUITES = {
    "lif_training": ("benchmarks.lif:training", 31, 3),
    "lif_inference": ("benchmarks.lif:inference", 51, 3),
    "lif_sizes": ("benchmarks.lif:sizes", 15, 3),
    "convolution": ("benchmarks.convolution:training", 15, 2),
    "convnet_training": ("benchmarks.convnet:training", 15, 2),
    "convnet_inference": ("benchmarks.convnet:inference", 21, 2),
    "neurons": ("benchmarks.neurons:training", 15, 2),
    "spikformer_training": ("benchmarks.transformers:training", 41, 2),
    "spikformer_inference": ("benchmarks.transformers:inference", 21, 2),
    "zoo_training": ("benchmarks.transformers:zoo_training", 9, 2),
    "zoo_inference": ("benchmarks.transformers:zoo_inference", 11, 2),
    "recurrent_training": ("benchmarks.recurrent:training", 15, 2),
    "recurrent_inference": ("benchmarks.recurrent:inference", 15, 2),
    "conversion": ("benchmarks.conversion:conversion", 3, 1),
    "conversion_inference": ("benchmarks.conversion:inference", 9, 2),
    "streaming": ("benchmarks.streaming:latency", 15, 2),
    "memory": ("benchmarks.memory:peak", 7, 1),
    "convnet_memory": ("benchmarks.memory:convnet_peak", 7, 1),
    "zoo_memory": ("benchmarks.memory:zoo_peak", 3, 1),
    "import_time": ("benchmarks.startup:import_time", 15, 3),
    "first_call": ("benchmarks.startup:first_call", 5, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=list(_SUITES), help="run one suite")
    parser.add_argument("--quick", action="store_true", help="a few rounds; prints, saves nothing")
    arguments = parser.parse_args()
    if arguments.only:
        return _run(arguments.only, arguments.quick)
    # Every suite in a process of its own: no allocator or cache left over from the one before.
    threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    failed = []
    for suite in _SUITES:
        command = [sys.executable, "-m", "benchmarks", "--only", suite]
        command += ["--quick"] * arguments.quick
        if subprocess.run(command, env={**os.environ, **threads}, cwd=_ROOT).returncode:
            failed.append(suite)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _run(suite: str, quick: bool) -> int:
    import torch

    torch.set_num_threads(THREADS)
    where, full_rounds, quick_rounds = _SUITES[suite]
    module, function = where.split(":")
    load_before = os.getloadavg()[0]
    print(f"{suite} (load average {load_before:.1f})", flush=True)
    measure = getattr(importlib.import_module(module), function)
    records = measure(quick_rounds if quick else full_rounds)
    for record in records:
        for name, figure in record.figures.items():
            shown = f"{figure.median:10.3f} {record.unit} ({figure.low:.3f}–{figure.high:.3f})"
            print(f"  {record.work}: {name} {shown}")
        for c in record.claims:
            goal = f">= {c.at_least}" if c.at_least else f"<= {c.at_most}" if c.at_most else ""
            print(f"    {c.of} / {c.by} = {c.ratio.median:.2f} {goal} reached={c.reached}")
        for note in record.notes:
            print(f"    {note}")
    if not quick:
        save(_RESULTS, suite, records, load_before, "python -m benchmarks")
        write_between_markers(_PAGE, render(load(_RESULTS, _SUITES)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
