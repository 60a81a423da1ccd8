"""Wording of errors that offer the nearest known names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["unknown_name"]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for an unknown name, with the nearest known ones.

    >>> unknown_name("neuron", "liff", ["if", "lif", "plif"])
    "unknown neuron 'liff'; did you mean 'lif' or 'plif' or 'if'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known: " + ", ".join(names)
    return f"unknown {kind} {name!r}; {hint}"
