"""Every surrogate keeps to the little language: its source, bound to plain ``math``, agrees.

This is what the compiled backends do with it, less the compiler: one scalar at a time, the names
bound to another library, nothing but assignments and a return.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rheobase.ops.translate import Binding, translate
from rheobase.surrogate import surrogates

SCALAR = Binding(
    calls={
        "abs": "abs({0})",
        "atan": "math.atan({0})",
        "cos": "math.cos({0})",
        "erf": "math.erf({0})",
        "exp": "math.exp({0})",
        "floor": "float(math.floor({0}))",
        "indicator": "(1.0 if {0} else 0.0)",
        "log": "math.log({0})",
        "maximum": "max({0}, {1})",
        "minimum": "min({0}, {1})",
        "round": "float(round({0}))",
        "sign": "float(({0} > 0.0) - ({0} < 0.0))",
        "sin": "math.sin({0})",
        "tanh": "math.tanh({0})",
        "where": "(({1}), ({2}))[not {0}]",  # both branches are computed, as on a GPU
    }
)

FUNCTIONS = [
    pytest.param(row, which, id=f"{row.name}-{which}")
    for row in surrogates()
    for which in ("derivative", "primitive")
    if getattr(row.cls, which) is not None
]


@pytest.mark.parametrize(("row", "which"), FUNCTIONS)
def test_as_scalar_code(row: Any, which: str) -> None:
    function: Callable[..., Any] = getattr(row.cls, which)
    names: dict[str, Any] = {"math": math}
    exec(translate(function, "scalar", SCALAR, decorator=""), names)
    z = torch.tensor(
        [-3e4, -95.0, -2.0, -1.0, -0.5, -0.3, -0.0, 0.0, 0.3, 0.5, 1.0, 2.5, 95.0, 3e4],
        dtype=torch.float64,
    )
    values = row.parameters.values()
    scalar = torch.tensor([names["scalar"](v, *values) for v in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(scalar, function(z, *values), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("row", "which"), FUNCTIONS)
def test_numbers_are_written_as_floats(row: Any, which: str) -> None:
    """An integer would not be bound to the kernel's dtype."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(row.cls, which))))
    numbers = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert all(isinstance(n, float) for n in numbers)


@pytest.mark.parametrize("row", surrogates(), ids=lambda row: row.name)
def test_functions_take_the_parameters_in_their_order(row: Any) -> None:
    for function in (row.cls.derivative, row.cls.primitive):
        if function is not None:
            assert list(inspect.signature(function).parameters) == ["z", *row.parameters]
