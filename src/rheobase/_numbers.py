"""Numbers that constructors are given, held to the annotations of their arguments."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

__all__ = ["Limit", "NumbersChecked", "Positive", "Share", "Size", "numbers_checked"]

Size = int
"""The annotation of what counts things (channels, time steps, heads): a whole number, 1 or more."""

Positive = float
"""The annotation of a number above 0."""

Share = float
"""The annotation of a number from 0 to 1."""

Limit = float
"""The annotation of a bound, which may be infinite."""

C = TypeVar("C", bound=type)


class _Kind(NamedTuple):
    wanted: str
    fits: Callable[[Any], bool]


_KINDS = {
    "Size": _Kind("a whole number of at least 1", lambda n: isinstance(n, Integral) and int(n) > 0),
    "int": _Kind("a whole number", lambda n: isinstance(n, Integral)),
    "Positive": _Kind("a finite number above 0", lambda n: 0 < n < math.inf),
    "Share": _Kind("a number from 0 to 1", lambda n: 0 <= n <= 1),
    "Limit": _Kind("a number", lambda n: not math.isnan(n)),
    "float": _Kind("a finite number", math.isfinite),
}

_OTHERS = {
    "None": _Kind("None", lambda value: value is None),
    "Schedule": _Kind("a schedule", callable),
    "Tensor": _Kind("a tensor", lambda value: isinstance(value, Tensor)),
}


class _Argument(NamedTuple):
    name: str
    place: int
    kind: _Kind
    others: frozenset[str]


class NumbersChecked:
    """Base of classes whose constructors' arguments are checked, those of subclasses too.

    An argument annotated ``float`` takes a finite number, ``int`` a whole one, `Size`, `Positive`,
    `Share` and `Limit` what they say; with ``| None``, ``| Tensor`` or ``| Schedule`` those too.
    Other ranges are the class's own to check.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            numbers_checked(cls)


def numbers_checked(cls: C) -> C:
    """Class decorator that checks the numbers its constructor is given: see `NumbersChecked`.

    The constructor then raises TypeError for what is no number, and ValueError for one that its
    annotation leaves out; True and False are no numbers.

    >>> @numbers_checked
    ... class Leak:
    ...     def __init__(self, tau: float, channels: Size | None = None) -> None: ...
    >>> Leak(math.nan)
    Traceback (most recent call last):
    ValueError: Leak takes a finite number as tau, got nan
    >>> Leak(2.0, channels=0)
    Traceback (most recent call last):
    ValueError: Leak takes a whole number of at least 1 or None as channels, got 0
    """
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]
    arguments = _arguments(init)
    if not arguments:
        return cls

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        for argument in arguments:
            if argument.name in kwargs:
                _check(self, argument, kwargs[argument.name])
            elif argument.place < len(args):
                _check(self, argument, args[argument.place])
        init(self, *args, **kwargs)

    cls.__init__ = checked  # type: ignore[misc]
    return cls


def _arguments(init: Callable[..., None]) -> list[_Argument]:
    """Those annotated as numbers."""
    found = []
    for place, parameter in enumerate(list(inspect.signature(init).parameters.values())[1:]):
        kind = parameter.annotation
        text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
        types = frozenset(text.split(" | "))
        kind = next((kind for name, kind in _KINDS.items() if name in types), None)
        others = types - _KINDS.keys()
        if kind is not None and others <= _OTHERS.keys():
            by_place = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            found.append(_Argument(parameter.name, place if by_place else 10**6, kind, others))
    return found


def _check(owner: Any, argument: _Argument, value: Any) -> None:
    name, _, kind, others = argument
    said = f"{type(owner).__name__} takes {kind.wanted}"
    said += "".join(f" or {_OTHERS[other].wanted}" for other in sorted(others))
    if isinstance(value, Real) and not isinstance(value, bool):
        if not kind.fits(value):
            raise ValueError(f"{said} as {name}, got {value}")
    elif not any(_OTHERS[other].fits(value) for other in others):
        raise TypeError(f"{said} as {name}, got {value!r}")
