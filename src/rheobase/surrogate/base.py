"""What every surrogate shares: its parameters, where their values come from, and the registry."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase._numbers import NumbersChecked

__all__ = [
    "Schedule",
    "Surrogate",
    "SurrogateRow",
    "Value",
    "is_at_hand",
    "surrogate_class",
    "surrogates",
]

Schedule = Callable[[float], float]
"""The value of a parameter at a fraction (0 to 1) of training: see `set_progress`."""

Value = float | Tensor | Schedule
"""Where a parameter's value comes from: a constant, an `nn.Parameter` to be learnt, a schedule."""

_CLASSES: dict[str, type[Surrogate]] = {}


def is_at_hand(parameter: Tensor) -> bool:
    """Whether its values can be looked at: no wait for a device, no compiler or transform."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return parameter.device.type == "cpu"


class Surrogate(NumbersChecked, nn.Module):
    """Base of all surrogates: parameters by name, a derivative and (where closed) its primitive.

    A subclass gives two static functions of ``(z, *parameters)`` in the little language of
    `rheobase.ops.lang`: ``derivative``, and ``primitive`` (a function whose derivative it is, up
    to a constant) where there is a closed one. The arguments of its ``__init__`` are its
    parameters, in the order in which the two functions take them.

    A parameter is a float; an `nn.Parameter`, learnt through ``primitive``; or a schedule, which
    `set_progress` evaluates. A float may be set anew at any time (``surrogate.alpha = 3.0``): no
    kernel is compiled again, but `torch.compile` makes another graph for it; for many values
    give a schedule.

    Raises:
        ValueError: a parameter is out of range, or is to be learnt without a primitive.
    """

    defaults: ClassVar[dict[str, float]] = {}
    """The parameters with their defaults, read from ``__init__``."""

    above: ClassVar[dict[str, float]] = {}
    """What a parameter must be above, where that is not 0."""

    mass: ClassVar[str] = "not stated"
    """The integral of ``g`` over all z, as a formula of the parameters."""

    height: ClassVar[str] = "not stated"
    """``g(0)``, as a formula of the parameters."""

    derivative: ClassVar[Callable[..., Any]]
    primitive: ClassVar[Callable[..., Any] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "derivative" not in cls.__dict__:
            return  # no surrogate of its own: `torch.export` wraps modules in subclasses
        arguments = inspect.signature(cls).parameters.values()
        cls.defaults = {a.name: a.default for a in arguments if a.kind is not a.VAR_KEYWORD}
        _CLASSES[cls.__name__] = cls

    def __init__(self, **parameters: Value) -> None:
        super().__init__()
        self.schedules: dict[str, Schedule] = {}
        for name, value in parameters.items():
            if callable(value):
                self.schedules[name] = value
                value = value(0.0)
            self.assign(name, value)

    def assign(self, name: str, value: float | Tensor) -> None:
        """Set a parameter.

        Raises:
            ValueError: the value is out of range, or is to be learnt without a primitive.
            TypeError: it is no number.
        """
        if isinstance(value, nn.Parameter) and self.primitive is None:
            raise ValueError(
                f"{type(self).__name__} has no closed primitive, so its {name} cannot be learnt; "
                "give a number"
            )
        if isinstance(value, bool) or not isinstance(value, Real | Tensor):
            raise TypeError(
                f"{type(self).__name__} takes a number, an nn.Parameter or a schedule as {name}, "
                f"got {value!r}"
            )
        lowest = self._refuse_out_of_range(name, value)
        if name in self.schedules:
            # A tensor, since torch.compile would take a float for a constant of the graph.
            value = torch.tensor(lowest, dtype=torch.float64)
        setattr(self, name, value if isinstance(value, Tensor) else lowest)

    def check(self) -> None:
        """Look again at the parameters that are learnt: an optimiser may have moved them anywhere.

        Every use does so where `is_at_hand`; training does so on any device, once an epoch.

        Raises:
            ValueError: one has left its range.
        """
        for name, value in self.parameters_by_name().items():
            if isinstance(value, nn.Parameter):
                self._refuse_out_of_range(name, value)

    def _refuse_out_of_range(self, name: str, value: float | Tensor) -> float:
        """The lowest of a parameter's values."""
        bound = self.above.get(name, 0.0)
        lowest = float(value.detach().min() if isinstance(value, Tensor) else value)
        if bound < lowest < math.inf:
            return lowest
        wanted = "a finite number" if bound == -math.inf else f"a number above {bound:g}"
        advice = ""
        if isinstance(value, nn.Parameter):
            advice = "; it is learnt: lower its learning rate, or clamp it after each step"
        raise ValueError(f"{type(self).__name__} takes {wanted} as {name}, got {lowest:g}{advice}")

    def parameters_by_name(self) -> dict[str, float | Tensor]:
        """The parameters in the order in which ``derivative`` takes them."""
        return {name: getattr(self, name) for name in self.defaults}

    def parameters_for(self, x: Tensor) -> dict[str, float | Tensor]:
        """The parameters for one input of a neuron; a sampled surrogate draws them here.

        Raises:
            ValueError: a learnt one has left its range.
        """
        if self._parameters and is_at_hand(x):
            self.check()
        return self.parameters_by_name()

    def forward(self, z: Tensor) -> Tensor:
        """The surrogate derivative ``g(z)``, elementwise: same shape and dtype as ``z``."""
        result: Tensor = type(self).derivative(z, *self.parameters_by_name().values())
        return result

    def extra_repr(self) -> str:
        """The parameters and their values."""
        values = self.parameters_by_name().items()
        return ", ".join(f"{n}={v.tolist() if isinstance(v, Tensor) else v}" for n, v in values)


class SurrogateRow(NamedTuple):
    """One line of the table `surrogates`; mass and height are formulas of the parameters."""

    name: str
    cls: type[Surrogate]
    parameters: dict[str, float]
    mass: str
    height: str


def surrogate_class(name: str) -> type[Surrogate]:
    """The surrogate class of that name.

    Raises:
        ValueError: no surrogate has that name; the nearest ones are offered.
    """
    if name not in _CLASSES:
        raise ValueError(unknown_name("surrogate", name, _CLASSES))
    return _CLASSES[name]


def surrogates() -> list[SurrogateRow]:
    """All surrogates, by name.

    >>> from rheobase.surrogate import surrogates
    >>> [(row.name, row.parameters, row.mass, row.height) for row in surrogates()][:1]
    [('ATan', {'alpha': 2.0}, '1', 'alpha/2')]
    """
    return [
        SurrogateRow(name, cls, cls.defaults, cls.mass, cls.height)
        for name, cls in sorted(_CLASSES.items())
    ]
