"""Results as JSON, one file a suite, and as the table in ``docs/benchmarks.md``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness import THREADS, Claim, Record, Spread
from rheobase._paths import write_text

__all__ = ["END", "START", "load", "machine", "render", "save", "write_between_markers"]

START = "<!-- results: written by python -m benchmarks, do not edit -->"
END = "<!-- end of results -->"

_PACKAGES = ("rheobase", "torch", "numba", "numpy", "spikingjelly", "snntorch", "norse")


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, memory, threads, versions, commit."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "threads": THREADS,
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def save(
    folder: Path, suite: str, records: Sequence[Record], load_before: float, command: str
) -> None:
    """Write ``SUITE.json`` whole or not at all."""
    content = {
        "suite": suite,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "load_average": [load_before, os.getloadavg()[0]],
        "machine": machine(),
        "records": [asdict(record) for record in records],
    }
    write_text(folder / f"{suite}.json", json.dumps(content, indent=1) + "\n")


def load(folder: Path, suites: Iterable[str]) -> list[dict[str, Any]]:
    """The saved results, in the order of ``suites``, with their records as `Record`."""
    paths = [folder / f"{suite}.json" for suite in suites]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    for result in results:
        result["records"] = [_record(record) for record in result["records"]]
    return results


def _record(saved: dict[str, Any]) -> Record:
    figures = {name: Spread(**figure) for name, figure in saved["figures"].items()}
    claims = [Claim(**{**c, "ratio": Spread(**c["ratio"])}) for c in saved["claims"]]
    return Record(saved["work"], saved["unit"], figures, claims, saved["notes"])


def render(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: the conditions, the ratios against their goals, then every figure."""
    records = [record for result in results for record in result["records"]]
    parts = [
        _conditions(results),
        "### Ratios\n",
        _table(("work", "ratio", "reach", "measured (p10–p90)", ""), _claim_rows(records)),
        "\n### Figures\n",
        _table(
            ("work", "contender", "median", "p10–p90", "rounds"),
            [
                (r.work, name, f"{_number(f.median)} {r.unit}", _range(f), str(f.rounds))
                for r in records
                for name, f in r.figures.items()
            ],
        ),
        "",
        *_notes(records),
    ]
    return "\n".join(parts) + "\n"


def _conditions(results: Sequence[dict[str, Any]]) -> str:
    lines = []
    for text, suites in _grouped(results).items():
        lines.append(f"- {', '.join(suites)}: {text}")
    return "\n".join(lines) + "\n"


def _grouped(results: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The suites by the conditions they were measured under."""
    groups: dict[str, list[str]] = {}
    for result in results:
        m = result["machine"]
        packages = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
        text = (
            f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}; "
            f"Python {m['python']}, {packages}; {m['threads']} threads; commit {m['commit']}; "
            f"{result['date'][:10]}; `{result['command']}`"
        )
        before, after = result["load_average"]
        named = f"`{result['suite']}` (load {before:.1f} before, {after:.1f} after)"
        groups.setdefault(text, []).append(named)
    return groups


def _claim_rows(records: Iterable[Record]) -> list[tuple[str, ...]]:
    verdicts = {True: "reached", False: "**missed**", None: "–"}
    return [
        (
            record.work,
            f"{c.of} ÷ {c.by}",
            _goal(c),
            f"{_number(c.ratio.median)} ({_range(c.ratio)})",
            verdicts[c.reached],
        )
        for record in records
        for c in record.claims
    ]


def _goal(c: Claim) -> str:
    if c.at_least is not None:
        return f"≥ {c.at_least:g}"
    return "–" if c.at_most is None else f"≤ {c.at_most:g}"


def _notes(records: Iterable[Record]) -> list[str]:
    return [f"- {record.work}: {note}" for record in records for note in record.notes]


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(figure: Spread) -> str:
    return f"{_number(figure.low)}–{_number(figure.high)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between_markers(page: Path, text: str) -> None:
    """Replace what stands between `START` and `END` in a page.

    Raises:
        ValueError: the page does not hold both markers, in order.
    """
    before, start, rest = page.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{page} must hold the lines {START!r} and {END!r}; put them back")
    write_text(page, f"{before}{START}\n{text}{END}{after}")
