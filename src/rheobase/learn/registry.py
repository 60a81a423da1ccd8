"""The learning rules by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rheobase._errors import unknown_name
from rheobase.learn.online import OTTT, SLTT, TruncatedBPTT
from rheobase.learn.rule import LearningRule

__all__ = ["RULES", "learning_rule"]

RULES: dict[str, Callable[..., LearningRule]] = {
    "truncated_bptt": TruncatedBPTT,
    "sltt": SLTT,
    "ottt": OTTT,
}


def learning_rule(name: str, **options: Any) -> LearningRule:
    """The rule of that name, with its options.

    Raises:
        ValueError: no rule, or no option of it, has that name (the nearest are offered); or the
            rule refuses a value.

    >>> learning_rule("sltt", k=2).k
    2
    """
    if name not in RULES:
        raise ValueError(unknown_name("learning rule", name, ["bptt", *RULES]))
    known = inspect.signature(RULES[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of {name}", option, known))
    return RULES[name](**options)
