"""Contenders timed in turn in one process, and what is concluded from the times.

On a shared machine the clock drifts, so contenders take turns within every round and ratios are
formed round by round; what is reported is the median with the 10th and 90th percentile.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

__all__ = [
    "THREADS",
    "Claim",
    "Record",
    "Spread",
    "backward_step",
    "claim",
    "in_fresh_process",
    "interleave",
    "spread",
]

THREADS = 2


@dataclass(frozen=True)
class Spread:
    """Median and 10th to 90th percentile of the rounds."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Claim:
    """The ratio of two contenders' figures against a goal (None: shown, nothing is promised)."""

    of: str
    by: str
    ratio: Spread
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median ratio meets the goal; None without a goal."""
        if self.at_least is not None:
            return self.ratio.median >= self.at_least
        if self.at_most is not None:
            return self.ratio.median <= self.at_most
        return None


@dataclass(frozen=True)
class Record:
    """One piece of work: every contender's figure in ``unit``, the claims, and what to know."""

    work: str
    unit: str
    figures: dict[str, Spread]
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def spread(values: Sequence[float]) -> Spread:
    """The median and percentiles of one figure over the rounds."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return Spread(float(median), float(low), float(high), len(values))


def claim(
    figures: Mapping[str, Sequence[float]],
    of: str,
    by: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Claim:
    """The ratio ``of / by``, formed round by round."""
    ratios = [a / b for a, b in zip(figures[of], figures[by], strict=True)]
    return Claim(of, by, spread(ratios), at_least, at_most)


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, list[float]]:
    """Milliseconds of every contender in every round, after ``warm_up`` untimed rounds.

    A round starts with another contender each time, so that nobody always follows the same one
    through the caches. What a call returns is dropped within its own time.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}

    def take_turns(indices: range) -> None:
        for index in indices:
            first = index % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_time(contenders[name]) * 1e3)

    take_turns(range(-warm_up, 0))
    # Else the collection before every call would walk through all of PyTorch and leave the caches
    # cold, and the layer with the shortest time would be charged for that most.
    gc.freeze()
    try:
        take_turns(range(rounds))
    finally:
        gc.unfreeze()
    return {name: values[warm_up:] for name, values in times.items()}


def _time(call: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    call()
    elapsed = time.perf_counter() - start
    gc.enable()
    return elapsed


def backward_step(layer: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Callable[[], None]:
    """A call of the layer forward and back, from the gradient ``g`` of its output."""

    def run() -> None:
        x.grad = None
        layer(x).backward(g)

    return run


def in_fresh_process(*arguments: str, **environment: str) -> dict[str, float]:
    """What ``python ARGUMENTS`` prints as its last line, read as JSON."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    printed: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return printed
