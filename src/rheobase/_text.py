"""Figures and tables in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["columns", "si"]

_PREFIXES = (
    (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"),
    (1e-12, "p"), (1e-15, "f"),
)  # fmt: skip


def columns(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """A table, its columns as wide as need be.

    >>> print(columns([("lif", "works")], ("id", "status")))
    id   status
    lif  works
    """
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def si(value: float) -> str:
    """Three digits and a prefix, ready for a unit.

    >>> si(4.6e-9), si(4_560_000), si(12), si(0), si(2.5e-13)
    ('4.60 n', '4.56 M', '12.0 ', '0 ', '250 f')
    """
    if not value:
        return "0 "
    scale, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1])
    scaled = value / scale
    digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:.{digits}f} {prefix}"
