"""What generated CPU kernels ask of the compiler."""

import importlib
import re

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from rheobase.ops.numba_lang import interleave


def test_interleave_marks_the_loop_before_it_alone() -> None:
    @njit
    def chain(steps, a):  # type: ignore[no-untyped-def]
        for t in range(steps):
            for j in range(1, a.size):  # cannot be made of vectors, so the mark stays
                a[j] = a[j - 1] / a[j] if a[j] > 2 else a[j] + a[j - 1]
            interleave(3)
            a[0] += np.float32(t)

    values = np.ones(4, np.float32)
    chain(2, values)
    assert values.tolist() == [2.0, 3.0, 1.0, 0.25]
    text = chain.inspect_llvm(chain.signatures[0])
    assert re.findall(r'"llvm.loop.interleave.count", i32 (\d+)', text) == ["3"]


def test_functions_made_by_others_have_names_of_their_own() -> None:
    """Kept kernels find the functions that they call by name, whichever process compiled them."""
    found: dict[tuple[str, str], Dispatcher] = {}
    modules = [
        importlib.import_module(f"rheobase.ops.{name}")
        for name in (
            "events.nonzero", "events.rows", "int8.rows", "lookup.rows", "products.cpu",
            "products.tiles", "products.turn", "recurrent.rows", "winograd.cpu",
            "winograd.cpu_weights",
        )
    ]  # fmt: skip
    left = [value for module in modules for value in vars(module).values()]
    while left:
        value = left.pop()
        if isinstance(value, Dispatcher):
            function = value.py_func
            name = function.__module__, function.__qualname__
            assert found.setdefault(name, value) is value, name
            left += [cell.cell_contents for cell in function.__closure__ or ()]
    assert len(found) > 30
