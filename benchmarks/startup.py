"""What a newcomer waits for: the import, and the first call that compiles kernels."""

from __future__ import annotations

import tempfile

from benchmarks.harness import Record, claim, in_fresh_process, spread

__all__ = ["first_call", "import_time"]

_IMPORT = """
import json, time
start = time.perf_counter()
import {package}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""

_CALL = """
import json, time, torch
from rheobase.neurons import LIF
x = torch.randn(4, 1, 1024, requires_grad=True)
def seconds():
    start = time.perf_counter()
    LIF()(x).sum().backward()
    return time.perf_counter() - start
print(json.dumps({"first": seconds(), "second": seconds()}))
"""


def import_time(rounds: int) -> list[Record]:
    """``import rheobase`` beside ``import torch``, in fresh processes.

    `rheobase` alone may put off importing torch; `rheobase.models`, with neurons and layers, is
    what every user ends up waiting for, and is held to the same goal.
    """
    figures: dict[str, list[float]] = {"rheobase": [], "rheobase.models": [], "torch": []}
    # The first round fills the file cache and compiles to bytecode, as an installed package is.
    for index in range(-1, rounds):
        for package, values in figures.items():
            code = _IMPORT.format(package=package)
            seconds = in_fresh_process("-c", code, PYTHONDONTWRITEBYTECODE="")["seconds"]
            if index >= 0:
                values.append(seconds)
    return [
        Record(
            "import",
            "s",
            {package: spread(values) for package, values in figures.items()},
            [
                claim(figures, package, "torch", at_most=1.15)
                for package in ("rheobase", "rheobase.models")
            ],
        )
    ]


def first_call(rounds: int) -> list[Record]:
    """LIF forward and backward: with an empty kernel cache, then with that cache, then warm."""
    figures: dict[str, list[float]] = {
        "after install": [],
        "new process, cached": [],
        "second call": [],
    }
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            compiled, cached = (in_fresh_process("-c", _CALL, RHEOBASE_CACHE=cache) for _ in "ab")
        figures["after install"].append(compiled["first"])
        figures["new process, cached"].append(cached["first"])
        figures["second call"].append(cached["second"])
    return [
        Record(
            "first LIF forward + backward `[4, 1, 1024]`",
            "s",
            {name: spread(values) for name, values in figures.items()},
        )
    ]
