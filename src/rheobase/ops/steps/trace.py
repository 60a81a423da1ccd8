"""What one step of a neuron computes, and its gradient, as arithmetic on single numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["Lines", "Program", "Untraceable", "trace_step"]

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], tuple[Tensor, Tensor, State]]


class Untraceable(Exception):
    """The step is more than arithmetic on the numbers of one column."""


@dataclass(frozen=True)
class Lines:
    """Assignments, and the expressions of the results behind them."""

    body: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A step as text: what it computes, its gradient, and the numbers that it was made with.

    ``numbers`` are apart from the text, so that a neuron of another time constant runs by the same
    kernel. Forward, from ``x`` and states ``u0, u1, ...``: spikes, charged membrane, next states.
    Back, from those, ``g_s``, ``g_h`` and ``g_u0, ...`` (the gradients of spikes, charged membrane
    and next states): the gradients of ``x`` and of the states.
    """

    states: int
    forward: Lines
    back: Lines
    numbers: tuple[float, ...]

    @property
    def takes_exp(self) -> bool:
        """Whether an exponential is among what it computes."""
        return any("exp" in line for line in self.forward.body)

    def back_from(self, tap: str) -> Lines:
        """`back` behind the gradient ``g_tap`` of what was tapped: "h", "v" or "" (nothing)."""
        tapped = {
            "h": ("g_h = g_tap",),
            "v": ("g_h = ZERO", "g_u0 = g_u0 + g_tap"),
            "": ("g_h = ZERO",),
        }
        return replace(self.back, body=(*tapped[tap], *self.back.body))

    @property
    def text(self) -> Program:
        """The program of any other numbers: what one kernel computes."""
        return replace(self, numbers=(0.0,) * len(self.numbers))


def trace_step(step: Step, states: int, dtype: torch.dtype) -> Program:
    """Take a step down.

    Args:
        step: from one step of input ``[N, ...]`` and the states to spikes, charged membrane and
            next states; elementwise.
        states: how many there are.
        dtype: of the arithmetic.

    Raises:
        Untraceable: it is not elementwise, depends on values, or computes what has no text here.
    """
    names = ["x", *(f"u{i}" for i in range(states))]
    grads = ["g_s", "g_h", *(f"g_u{i}" for i in range(states))]

    def forward(x: Tensor, *before: Tensor) -> list[Tensor]:
        s, h, after = step(x, before)
        return [s, h, *after]

    def back(*given: Tensor) -> list[Tensor]:
        inputs = [value.detach().requires_grad_() for value in given[: states + 1]]
        with torch.enable_grad():
            outputs = forward(*inputs)
        pairs = zip(outputs, given[states + 1 :], strict=True)
        followed = [(y, g) for y, g in pairs if y.requires_grad]
        found = torch.autograd.grad(
            [y for y, _ in followed], inputs, [g for _, g in followed], allow_unused=True
        )
        return [torch.zeros_like(given[0]) if g is None else g for g in found]

    writer = _Writer(dtype)
    with torch.no_grad():
        text = writer.lines(_graph(forward, len(names), dtype), names)
        text_back = writer.lines(_graph(back, len(names) + len(grads), dtype), [*names, *grads])
    return Program(states, text, text_back, tuple(writer.numbers))


def _graph(function: Callable[..., list[Tensor]], inputs: int, dtype: torch.dtype) -> fx.Graph:
    # Imported here, since they take as long as the rest of a neuron's modules together.
    from torch._decomp import get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    aten = torch.ops.aten
    table = get_decompositions(
        [aten.sigmoid_backward, aten.tanh_backward, aten.threshold_backward, aten.addcmul]
    )
    example = [torch.full((1, 1), 0.5, dtype=dtype) for _ in range(inputs)]
    try:
        traced = make_fx(function, decomposition_table=table)(*example)  # type: ignore[arg-type]
        # Once more, for a graph without operations in place.
        return make_fx(torch.func.functionalize(traced))(*example).graph
    except Exception as problem:
        raise Untraceable(f"{type(problem).__name__}: {problem}") from problem


_ZERO, _ONE = "ZERO", "ONE"
_COMPARED = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "==", "ne": "!="}
_CALLS = {
    "exp": "exp({0})", "log": "math.log({0})", "sqrt": "math.sqrt({0})", "sin": "math.sin({0})",
    "cos": "math.cos({0})", "tanh": "math.tanh({0})", "atan": "math.atan({0})",
    "erf": "math.erf({0})", "expm1": "expm1({0})", "abs": "abs({0})", "neg": "-{0}",
    "floor": "np.floor({0})", "round": "np.rint({0})", "reciprocal": "ONE / {0}",
    "sigmoid": "ONE / (ONE + exp(-{0}))", "div": "{0} / {1}",
    "sign": "(ONE if {0} > ZERO else (-ONE if {0} < ZERO else ZERO))",
    "relu": "({0} if {0} > ZERO else ZERO)",
    "maximum": "({0} if {0} > {1} else {1})", "minimum": "({0} if {0} < {1} else {1})",
    "clamp_min": "({1} if {0} < {1} else {0})", "clamp_max": "({1} if {0} > {1} else {0})",
}  # fmt: skip
_LOGICAL = {"logical_and": "and", "bitwise_and": "and", "logical_or": "or", "bitwise_or": "or"}
_SAME = ("_to_copy", "detach", "alias", "clone", "lift_fresh_copy", "view", "expand", "lift_fresh")
_FILLED = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}


@dataclass(frozen=True)
class _Value:
    """An expression, and whether it is true or false instead of a number."""

    text: str
    boolean: bool = False


class _Writer:
    """From a graph of PyTorch's operations to lines; numbers are collected over several graphs."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.numbers: list[float] = []

    def lines(self, graph: fx.Graph, names: Sequence[str]) -> Lines:
        """The text of a graph whose inputs are called ``names``."""
        graph.eliminate_dead_code()
        values: dict[fx.Node, _Value] = {}
        body: list[str] = []
        inputs = iter(names)
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = _Value(next(inputs))
            elif node.op == "output":
                results = [self._number(values[one]) for one in node.args[0]]
            elif node.op == "call_function":
                value = self._expression(node, values)
                if " " in value.text or "(" in value.text or value.text.startswith("-"):
                    name = f"v{len(body)}"
                    body.append(f"{name} = {value.text}")
                    value = _Value(name, value.boolean)
                values[node] = value
            else:
                raise Untraceable(f"the step uses a tensor of its own: {node.target}")
        return Lines(tuple(body), tuple(results))

    def _expression(self, node: fx.Node, values: dict[fx.Node, _Value]) -> _Value:
        """One operation."""
        if not isinstance(node.target, torch._ops.OpOverload):
            raise Untraceable(f"no text for {node.target}")
        name = node.target._schema.name.partition("::")[2]
        given: list[Any] = [values[a] if isinstance(a, fx.Node) else a for a in node.args]
        if node.kwargs.get("dtype", self.dtype) not in (self.dtype, None):
            raise Untraceable(f"{name} to {node.kwargs['dtype']}")
        if name in _SAME:
            same: _Value = given[0]
            return same
        if name in _FILLED:
            return _Value(self._constant(_FILLED[name]))
        if name in ("full_like", "full", "scalar_tensor", "new_full"):
            return _Value(self._constant(given[0 if name == "scalar_tensor" else 1]))
        if name == "where":
            condition, yes, no = given
            return _Value(f"({self._number(yes)} if {condition.text} else {self._number(no)})")
        if name == "masked_fill":
            number, condition, filled = given
            return _Value(f"({self._number(filled)} if {condition.text} else {number.text})")
        if name in _LOGICAL:
            return _Value(f"({given[0].text} {_LOGICAL[name]} {given[1].text})", boolean=True)
        if name in ("logical_not", "bitwise_not"):
            return _Value(f"(not {given[0].text})", boolean=True)
        numbers = [self._number(a) for a in given if a is not None]
        if name in _COMPARED:
            return _Value(f"({numbers[0]} {_COMPARED[name]} {numbers[1]})", boolean=True)
        if name == "clamp":
            return self._clamp(given)
        if name == "pow":
            return _Value(_power(numbers[0], given[1]))
        if name in ("add", "sub", "mul", "rsub"):
            return self._arithmetic(name, numbers, node.kwargs)
        if name in _CALLS and not node.kwargs:
            return _Value(_CALLS[name].format(*numbers))
        raise Untraceable(f"no text for {node.target}")

    def _arithmetic(self, name: str, numbers: list[str], options: Any) -> _Value:
        """Sums and products, of which those with 0 (a surrogate's, going forward) are left out."""
        a, b = reversed(numbers) if name == "rsub" else numbers
        if options.get("alpha", 1) != 1:
            b = f"({self._constant(options['alpha'])} * {b})"
        if name == "mul":
            return _Value(_ZERO if _ZERO in (a, b) else f"{a} * {b}")
        if name == "add":
            return _Value(b if a == _ZERO else a if b == _ZERO else f"{a} + {b}")
        return _Value(_ZERO if a == b else a if b == _ZERO else f"{a} - {b}")

    def _clamp(self, given: list[Any]) -> _Value:
        text = given[0].text
        for bound, sign in zip(given[1:], "<>", strict=False):
            if bound is not None:
                limit = self._number(bound)
                text = f"({limit} if {text} {sign} {limit} else {text})"
        return _Value(text)

    def _number(self, value: Any) -> str:
        """An operand as a number."""
        return self._as_number(value).text if isinstance(value, _Value) else self._constant(value)

    def _as_number(self, value: _Value) -> _Value:
        return _Value(f"(ONE if {value.text} else ZERO)") if value.boolean else value

    def _constant(self, value: Any) -> str:
        if not isinstance(value, int | float):
            raise Untraceable(f"no text for {value}")
        if value in (0.0, 1.0):
            return _ONE if value else _ZERO
        self.numbers.append(float(value))
        return f"c[{len(self.numbers) - 1}]"


def _power(base: str, exponent: Any) -> str:
    if isinstance(exponent, _Value) or exponent not in (1, 2, 3, 4):
        raise Untraceable(f"no text for a power of {exponent}")
    if exponent == 4:
        return f"({base} * {base}) * ({base} * {base})"
    return " * ".join([base] * int(exponent))
