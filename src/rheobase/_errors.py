"""Errors that offer the nearest known names, and warnings that point at the caller's line."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

__all__ = ["unknown_name", "warn_caller"]

_PASSED_OVER = ("rheobase", "torch")


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


def warn_caller(message: str) -> None:
    """Warn at the line that called into this package, however far up that is."""
    frame, level = sys._getframe(0), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_OVER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
