"""Methods of direct training against what each one improves on, over several seeds.

`rheobase compare` trains ``configs/METHOD_mnist_small.yaml`` and the same run with the baseline's
settings, and writes a table of what was measured. Runs are shared, kept and continued: a baseline
that several methods have in common is trained once, and a second call trains what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, mean, stdev

from rheobase._errors import unknown_name
from rheobase.experiments.pairs import PAIRS, Pair
from rheobase.train import TrainConfig, load_config, train

__all__ = ["Comparison", "compare", "table"]

Report = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What was measured of one method.

    Attributes:
        method: its name in `rheobase.experiments.pairs.PAIRS`.
        claim: what its paper says it improves on.
        seeds: of the runs, in order.
        accuracy: last test accuracy of the method, one a seed.
        baseline: of the baseline.
    """

    method: str
    claim: str
    seeds: list[int]
    accuracy: list[float]
    baseline: list[float]

    @property
    def gains(self) -> list[float]:
        """Accuracy above the baseline's, seed by seed."""
        return [a - b for a, b in zip(self.accuracy, self.baseline, strict=True)]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean gain: Student's t of the paired differences.

        A single seed tells nothing: the interval is without end.
        """
        n = len(self.gains)
        if n < 2:
            return -math.inf, math.inf
        half = _student(n - 1) * stdev(self.gains) / n**0.5
        return mean(self.gains) - half, mean(self.gains) + half

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else ``undecided``."""
        low, high = self.interval
        return "better" if low > 0.0 else "worse" if high < 0.0 else "undecided"


def compare(
    methods: Sequence[str] = (),
    *,
    configs: str | Path = "configs",
    folder: str | Path = "runs/compare",
    seeds: int = 3,
    overrides: Sequence[str] = (),
    report: Report = print,
) -> list[Comparison]:
    """Train methods and baselines; write ``results.json`` and ``table.md`` into ``folder``.

    Args:
        methods: names of `PAIRS`; none means all of them.
        configs: folder of the recipes ``METHOD_mnist_small.yaml``.
        folder: holds the runs and results. What earlier calls measured stays in the table.
        seeds: runs of each, of seeds 0, 1, ...
        overrides: ``key=value`` settings of every run, such as ``epochs=1``.
        report: called with a line for each run.

    Raises:
        ValueError: an unknown method (the nearest is offered), or no seed.
        FileNotFoundError: a recipe is not there.
    """
    for name in methods:
        if name not in PAIRS:
            raise ValueError(unknown_name("method", name, PAIRS))
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: at least one run of each")
    folder = Path(folder)
    found = {row.method: row for row in _read(folder / "results.json")}
    for name in methods or PAIRS:
        pair, recipe = PAIRS[name], Path(configs) / f"{name}_mnist_small.yaml"
        runs = [
            _both(name, pair, recipe, folder, [f"seed={seed}", *overrides], report)
            for seed in range(seeds)
        ]
        ours, theirs = (list(column) for column in zip(*runs, strict=True))
        found[name] = Comparison(name, pair.claim, list(range(seeds)), ours, theirs)
        rows = [found[known] for known in PAIRS if known in found]
        _write(folder / "results.json", json.dumps([dataclasses.asdict(r) for r in rows], indent=1))
        _write(folder / "table.md", table(rows))
    return [found[name] for name in methods or PAIRS]


def table(rows: Sequence[Comparison]) -> str:
    """The results as a Markdown table, accuracies in percent.

    >>> print(table([Comparison("tet", "TET > CE", [0, 1], [0.9, 0.92], [0.88, 0.91])]))
    | method | claim | seeds | baseline | method's | gain | 95 % of the gain | verdict |
    |---|---|---|---|---|---|---|---|
    | `tet` | TET > CE | 2 | 89.50 ± 2.12 | 91.00 ± 1.41 | +1.50 | -4.85 to +7.85 | undecided |
    <BLANKLINE>
    """
    head = "| method | claim | seeds | baseline | method's | gain | 95 % of the gain | verdict |"
    lines = [head, "|---" * 8 + "|"]
    for row in rows:
        low, high = (f"{100 * bound:+.2f}" for bound in row.interval)
        numbers = (_percent(row.baseline), _percent(row.accuracy), f"{100 * mean(row.gains):+.2f}")
        lines.append(
            f"| `{row.method}` | {row.claim} | {len(row.seeds)} | {' | '.join(numbers)} "
            f"| {low} to {high} | {row.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _both(
    name: str, pair: Pair, recipe: Path, folder: Path, overrides: list[str], report: Report
) -> tuple[float, float]:
    """Accuracy of the method and of its baseline, of one seed."""
    both = []
    for which, changed in ((name, ()), (f"{name}'s baseline", pair.baseline)):
        if pair.teacher and not changed:
            teacher = load_config(recipe.with_name(f"{pair.teacher}.yaml"), overrides)
            taught = _accuracy(teacher, folder)[1]
            changed = (f"loss.teacher.run={taught}",)
        accuracy, run = _accuracy(load_config(recipe, [*changed, *overrides]), folder)
        report(f"{which:<28} {overrides[0]:<7} {accuracy:.2%}  {run}")
        both.append(accuracy)
    return both[0], both[1]


def _accuracy(cfg: TrainConfig, folder: Path) -> tuple[float, Path]:
    """Train, or read what a run of the same settings reached; its folder is named after them."""
    settings = json.dumps(dataclasses.asdict(dataclasses.replace(cfg, run="")), sort_keys=True)
    run = folder / hashlib.sha256(settings.encode()).hexdigest()[:12]
    done = run / "accuracy.txt"
    if not done.exists():
        log = dataclasses.replace(cfg.log, progress="never")
        accuracy = train(dataclasses.replace(cfg, run=str(run), log=log)).accuracy
        _write(done, f"{accuracy!r}\n")
    return float(done.read_text()), run


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


# The 97.5 % points of Student's t for 1, 2, ... degrees of freedom.
_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930,
)  # fmt: skip


def _student(degrees: int) -> float:
    """The point, to within 0.001; that of 20 and more by Cornish and Fisher's expansion."""
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _read(path: Path) -> list[Comparison]:
    if not path.exists():
        return []
    return [Comparison(**row) for row in json.loads(path.read_text())]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, path)
