"""The catalog: every system the library is to hold, with its paper, status, entry and evidence.

The rows stand in ``catalog.yaml``, beside this file, to be edited by hand. A row claims only what
its evidence shows: ``works`` needs an entry that a user can call and a test that holds the system
to its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from rheobase._errors import unknown_name

__all__ = ["STATUSES", "System", "groups", "systems"]

STATUSES = ("works", "partial", "open")


@dataclass(frozen=True)
class System:
    """One row: a neuron, a method, a model, a metric or an experiment of the surveys.

    Attributes:
        id: the name under which it is known here.
        name: the name under which the field knows it.
        group: what kind of thing it is.
        status: "works", "partial" or "open".
        paper: where it was published; the place in the surveys where that is not one paper.
        entry: what a user calls: a dotted path, such a path with a call, or a command.
        evidence: the tests (``tests/FILE.py::FUNCTION``) that hold it to its source.
        uncertain: of a reconstruction, which has no public code, what had to be chosen.
    """

    id: str
    name: str
    group: str
    status: str
    paper: str
    entry: str
    evidence: tuple[str, ...]
    uncertain: str = ""

    def row(self) -> dict[str, Any]:
        """The row as plain data; what is uncertain is part of the name."""
        row = asdict(self)
        uncertain = row.pop("uncertain")
        if uncertain:
            row["name"] += f" (a reconstruction; uncertain: {uncertain})"
        return row


@cache
def _rows() -> tuple[System, ...]:
    text = files("rheobase").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return tuple(_read(yaml.safe_load(text)))


def _read(groups: dict[str, dict[str, dict[str, Any]]]) -> Iterator[System]:
    for group, rows in groups.items():
        for id, row in rows.items():
            yield System(
                id=id,
                name=row["name"],
                group=group,
                status=row.get("status", "open"),
                paper=row.get("paper", row["source"]),
                entry=row.get("entry", ""),
                evidence=tuple(row.get("evidence", ())),
                uncertain=row.get("uncertain", ""),
            )


def groups() -> list[str]:
    """The kinds of systems, in the order of the catalog."""
    return list(dict.fromkeys(system.group for system in _rows()))


def systems(group: str | None = None, status: str | None = None) -> list[System]:
    """The systems, of one group and one status if given.

    Raises:
        ValueError: there is no such group or status; the nearest ones are offered.

    >>> [system.id for system in systems(group="neurons")][:3]
    ['if', 'lif', 'hodgkin_huxley']
    """
    if group is not None and group not in groups():
        raise ValueError(unknown_name("group", group, groups()))
    if status is not None and status not in STATUSES:
        raise ValueError(unknown_name("status", status, STATUSES))
    return [
        system
        for system in _rows()
        if group in (None, system.group) and status in (None, system.status)
    ]
