"""Methods of direct training against what each one improves on, over several seeds.

`rheobase compare` trains a method's small twin in ``configs/`` and the same run with the baseline's
settings, and writes two tables: of test accuracy, and of what the papers say that their methods do
besides, measured on the same networks (`rheobase.experiments.mechanisms`). Runs are shared, kept
and continued: a baseline that several methods have in common is trained once, and a second call
trains what is missing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist, mean, stdev

from rheobase._errors import unknown_name
from rheobase._paths import write_text
from rheobase.experiments.kept_runs import finished, reached
from rheobase.experiments.measured import first_samples
from rheobase.experiments.mechanisms import Trained
from rheobase.experiments.pairs import PAIRS, Pair, recipe_of
from rheobase.train import TrainConfig, load_config

__all__ = ["Comparison", "compare", "mechanism_table", "table"]

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
        measured: the quantity of the pair's mechanism, of the method; empty without one.
        measured_baseline: of the baseline.
    """

    method: str
    claim: str
    seeds: list[int]
    accuracy: list[float]
    baseline: list[float]
    measured: list[float] = field(default_factory=list)
    measured_baseline: list[float] = field(default_factory=list)

    @property
    def gains(self) -> list[float]:
        """Accuracy above the baseline's, seed by seed."""
        return _differences(self.accuracy, self.baseline)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean gain: Student's t of the paired differences.

        A single seed tells nothing: the interval is without end.
        """
        return _interval(self.gains)

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else ``undecided``."""
        return _verdict(self.interval)


def compare(
    methods: Sequence[str] = (),
    *,
    configs: str | Path = "configs",
    folder: str | Path = "runs/compare",
    seeds: int = 3,
    overrides: Sequence[str] = (),
    report: Report = print,
) -> list[Comparison]:
    """Train methods and baselines; write what was measured into ``folder``.

    That is ``results.json``, and `table` and `mechanism_table` of it (``table.md``,
    ``mechanisms.md``).

    Args:
        methods: names of `PAIRS`; none means all of them.
        configs: folder of the recipes (`rheobase.experiments.pairs.recipe_of`).
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
        pair, recipe = PAIRS[name], Path(configs) / recipe_of(name)
        runs = [
            _both(name, pair, recipe, folder, [f"seed={seed}", *overrides], report)
            for seed in range(seeds)
        ]
        columns = [list(column) for column in zip(*runs, strict=True)]
        found[name] = Comparison(name, pair.claim, list(range(seeds)), *columns)
        rows = [found[known] for known in PAIRS if known in found]
        write_text(
            folder / "results.json", json.dumps([dataclasses.asdict(r) for r in rows], indent=1)
        )
        write_text(folder / "table.md", table(rows))
        write_text(folder / "mechanisms.md", mechanism_table(rows))
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


def mechanism_table(rows: Sequence[Comparison]) -> str:
    """What was measured of the mechanisms as a Markdown table; empty where nothing was.

    >>> row = Comparison("rmp", "", [0, 1], [0.9, 0.9], [0.9, 0.9], [0.2, 0.4], [0.3, 0.6])
    >>> print(mechanism_table([row]))
    | method | measured | wanted | seeds | baseline | method's | difference | 95 % of it | verdict |
    |---|---|---|---|---|---|---|---|---|
    | `rmp` | squared distance of membranes from spikes | less | 2 | 0.4500 ± 0.2121 | 0.3000 ± 0.1414 | -0.1500 | -0.7853 to +0.4853 | undecided |
    <BLANKLINE>
    """  # noqa: E501
    columns = "method|measured|wanted|seeds|baseline|method's|difference|95 % of it|verdict"
    lines = [f"| {columns.replace('|', ' | ')} |", "|---" * 9 + "|"]
    for row in rows:
        mechanism = PAIRS[row.method].mechanism
        if mechanism is None or not row.measured:
            continue
        differences = _differences(row.measured, row.measured_baseline)
        low, high = interval = _interval(differences)
        lines.append(
            f"| `{row.method}` | {mechanism.quantity} | {'less' if mechanism.lower else 'more'} "
            f"| {len(row.seeds)} | {_spread(row.measured_baseline)} | {_spread(row.measured)} "
            f"| {mean(differences):+.4f} | {low:+.4f} to {high:+.4f} "
            f"| {_verdict(interval, mechanism.lower)} |"
        )
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _differences(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, baseline, strict=True)]


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    n = len(differences)
    if n < 2:
        return -math.inf, math.inf
    half = _student(n - 1) * stdev(differences) / n**0.5
    return mean(differences) - half, mean(differences) + half


def _verdict(interval: tuple[float, float], lower: bool = False) -> str:
    low, high = (-interval[1], -interval[0]) if lower else interval
    return "better" if low > 0.0 else "worse" if high < 0.0 else "undecided"


def _both(
    name: str, pair: Pair, recipe: Path, folder: Path, overrides: list[str], report: Report
) -> list[float]:
    """Accuracy of the method and of its baseline, of one seed; then their mechanism's quantity."""
    accuracies, quantities = [], []
    for which, changed in ((name, ()), (f"{name}'s baseline", pair.baseline)):
        if pair.teacher and not changed:
            teacher = load_config(recipe.with_name(f"{pair.teacher}.yaml"), overrides)
            taught = reached(teacher, folder)[1]
            changed = (f"loss.teacher.run={taught}",)
        cfg = load_config(recipe, [*changed, *overrides])
        accuracy, run = reached(cfg, folder)
        accuracies.append(accuracy)
        found = ""
        if pair.mechanism:
            quantities.append(pair.mechanism.of(_trained(cfg, run)))
            found = f"  {pair.mechanism.quantity}: {quantities[-1]:.4f}"
        report(f"{which:<28} {overrides[0]:<7} {accuracy:.2%}  {run}{found}")
    return accuracies + quantities


# Images that mechanisms are measured on; finite differences pass over them a hundred times.
_MEASURED = 1000


def _trained(cfg: TrainConfig, run: Path) -> Trained:
    """The network of a run that is at its end, and its first test images."""
    result = finished(cfg, run)
    images, labels = first_samples(cfg, _MEASURED)
    accuracies = [row["accuracy"] for row in result.epochs]
    return Trained(result.model.eval(), images, labels, accuracies)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


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
