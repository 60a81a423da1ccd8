"""The learning rules by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rheobase._errors import unknown_name
from rheobase.learn.decolle import DECOLLE
from rheobase.learn.eprop import EProp
from rheobase.learn.eqprop import EqProp
from rheobase.learn.forward_forward import ForwardForward
from rheobase.learn.online import OTTT, SLTT, TruncatedBPTT
from rheobase.learn.plasticity import RSTDP, STDP
from rheobase.learn.resume import ReSuMe
from rheobase.learn.rule import LearningRule
from rheobase.learn.spikeprop import SpikeProp
from rheobase.learn.superspike import SuperSpikeRule
from rheobase.learn.tempotron import Tempotron

__all__ = ["RULES", "learning_rule"]

RULES: dict[str, Callable[..., LearningRule]] = {
    "truncated_bptt": TruncatedBPTT,
    "sltt": SLTT,
    "ottt": OTTT,
    "eprop": EProp,
    "superspike": SuperSpikeRule,
    "decolle": DECOLLE,
    "tempotron": Tempotron,
    "resume": ReSuMe,
    "stdp": STDP,
    "r_stdp": RSTDP,
    "forward_forward": ForwardForward,
    "eqprop": EqProp,
    "spikeprop": SpikeProp,
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
    known = _arguments(RULES[name])
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of {name}", option, known))
    return RULES[name](**options)


def _arguments(rule: Callable[..., LearningRule]) -> list[str]:
    """The names of a rule's arguments, those that it hands on to its base included."""
    classes = rule.__mro__ if isinstance(rule, type) else (rule,)
    found: list[str] = []
    for cls in classes:
        found += [name for name in inspect.signature(cls).parameters if name not in found]
        if "options" not in found:
            break
        found.remove("options")
    return found
