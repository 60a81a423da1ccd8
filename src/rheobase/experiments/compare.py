"""Methods of direct training against what each one improves on, over several seeds.

`rheobase compare` trains ``configs/METHOD_mnist_small.yaml`` and the same run with the baseline's
settings, and writes a table of what was measured. Runs are shared, kept and continued: a baseline
that several methods have in common is trained once, and a second call trains what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

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
    def shown(self) -> bool:
        """Whether the mean gain is above 0 by more than its standard error."""
        if len(self.gains) < 2:
            return False
        error = stdev(self.gains) / len(self.gains) ** 0.5
        return bool(mean(self.gains) > error)


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
    | method | claim | seeds | baseline | method's | gain | shown |
    |---|---|---|---|---|---|---|
    | `tet` | TET > CE | 2 | 89.50 ± 2.12 | 91.00 ± 1.41 | +1.50 ± 0.71 | yes |
    <BLANKLINE>
    """
    lines = ["| method | claim | seeds | baseline | method's | gain | shown |", "|---" * 7 + "|"]
    for row in rows:
        numbers = (_percent(row.baseline), _percent(row.accuracy), _percent(row.gains, "+"))
        shown = "yes" if row.shown else "no"
        lines.append(
            f"| `{row.method}` | {row.claim} | {len(row.seeds)} | {' | '.join(numbers)} | {shown} |"
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


def _percent(values: Sequence[float], sign: str = "") -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):{sign}.2f}{spread}"


def _read(path: Path) -> list[Comparison]:
    if not path.exists():
        return []
    return [Comparison(**row) for row in json.loads(path.read_text())]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, path)
