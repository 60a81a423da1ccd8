"""The text of a step's fused CPU kernels: all T steps of a block of columns after another.

Forward moves the states in place; back, their gradient, from that of the last to that of the first.
On the way back a block first runs forward once more and keeps the states before every step, so
nothing but the input need be saved.
"""

from __future__ import annotations

from textwrap import indent

from rheobase.ops.steps.trace import Lines, Program

__all__ = ["BLOCK", "back_parameters", "back_source", "forward_parameters", "forward_source"]

BLOCK = 1024
"""Columns that go through time together."""

_SIZES = dict.fromkeys(("steps", "size", "chunk"), "int64")


def forward_parameters(real: str) -> dict[str, str]:
    """Name and kind of what the forward kernel is called with (see `ops.native.Kernel`)."""
    arrays = {"x": f"{real}*", "x_step": "int64"}
    rest = ("spikes", "tap", "state", "c")
    return arrays | dict.fromkeys(rest, f"{real}*") | _SIZES


def back_parameters(real: str) -> dict[str, str]:
    """The same for the kernel on the way back."""
    strided = {"g": f"{real}*", "g_step": "int64", "x": f"{real}*", "x_step": "int64"}
    rest = ("g_tap", "first", "gx", "g_state", "c")
    return strided | dict.fromkeys(rest, f"{real}*") | _SIZES


def forward_source(program: Program, tap: str, real: str) -> str:
    """The module of the forward kernel, with a function ``kernel``.

    Args:
        program: the step.
        tap: "h", "v" or "" (no membrane sequence).
        real: dtype of the arithmetic.
    """
    s, h, *after = program.forward.results
    states = [f"u{i}" for i in range(program.states)]
    stores = {"spikes": s, **dict(zip(states, after, strict=True))}
    if tap:
        stores["tap"] = after[0] if tap == "v" else h
    rows = ["x", "spikes", *(["tap"] if tap else []), *states]
    sweep = _sweep("sweep", rows, ["x", *states], program.forward, stores)
    windows = [
        "window(x, t * x_step + lo, n)",
        *(f"window({a}, t * size + lo, n)" for a in rows[1 : len(rows) - len(states)]),
        *(f"window(state, {i} * size + lo, n)" for i in range(len(states))),
    ]
    return f"""{_header(real)}
{sweep}


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(forward_parameters(real))}):
    for lo in range(first_chunk * chunk, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
        for t in range(steps):
            sweep(n, c, {", ".join(windows)})
"""


def back_source(program: Program, tap: str, real: str) -> str:
    """The module of the kernel on the way back, with a function ``kernel``; arguments as above."""
    count = program.states
    states, nexts = [f"u{i}" for i in range(count)], [f"next{i}" for i in range(count)]
    carries = [f"g_u{i}" for i in range(count)]
    after = program.forward.results[2:]
    again = _sweep(
        "again", ["x", *states, *nexts], ["x", *states], program.forward,
        dict(zip(nexts, after, strict=True)),
    )  # fmt: skip
    loads = ["x", *states, "g_s", *carries, *(["g_tap"] if tap else [])]
    gx, *g_before = program.back.results
    back = _sweep(
        "back", [*loads, "gx"], loads, program.back_from(tap),
        {"gx": gx, **dict(zip(carries, g_before, strict=True))}, exact=False,
    )  # fmt: skip
    x = "window(x, t * x_step + lo, n)"
    kept = [f"window(kept, (t * {count} + {i}) * BLOCK, n)" for i in range(count)]
    following = [f"window(kept, ((t + 1) * {count} + {i}) * BLOCK, n)" for i in range(count)]
    carried = [f"window(g_state, {i} * size + lo, n)" for i in range(count)]
    given = [x, *kept, "window(g, t * g_step + lo, n)", *carried]
    given += ["window(g_tap, t * size + lo, n)"] if tap else []
    begin = "\n".join(
        f"copy(window(kept, {i} * BLOCK, n), window(first, {i} * size + lo, n))"
        for i in range(count)
    )
    return f"""{_header(real)}
{again}


{back}


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(back_parameters(real))}):
    kept = np.empty(steps * {count} * BLOCK, real)
    for lo in range(first_chunk * chunk, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
{indent(begin, "        ")}
        for t in range(steps - 1):
            again(n, c, {", ".join([x, *kept, *following])})
        for t in range(steps - 1, -1, -1):
            back(n, c, {", ".join([*given, "window(gx, t * size + lo, n)"])})
"""


def _sweep(
    name: str,
    rows: list[str],
    loads: list[str],
    lines: Lines,
    stores: dict[str, str],
    exact: bool = True,
) -> str:
    """One step of a block's columns, as a function.

    Args:
        name: of the function.
        rows: its arrays, one value a column, each called ``row_`` and then so.
        loads: those that are read before all else.
        lines: what is computed.
        stores: what is written to which row.
        exact: round as PyTorch does; else multiply and add may be fused.
    """
    fast = "" if exact else ', fastmath={"contract"}'
    body = [
        *(f"{one} = row_{one}[j]" for one in loads),
        *lines.body,
        *(f"row_{row}[j] = {value}" for row, value in stores.items()),
    ]
    return f"""@njit(nogil=True, error_model="numpy"{fast})
def {name}(n, c, {", ".join(f"row_{row}" for row in rows)}):
    arrays_do_not_overlap()
    prefer_wide_vectors()
    for column in range(n):
        j = np.uint64(column)
{indent(chr(10).join(body), "        ")}"""


def _header(real: str) -> str:
    return f'''"""Fused CPU kernel of a neuron's step; made by rheobase."""
import math
import numpy as np
from numba import njit
from rheobase.ops.numba_lang import (
    arrays_do_not_overlap, copy, exp32, expm1_32, prefer_wide_vectors, window
)

real = np.{real}
ONE = real(1.0)
ZERO = real(0.0)
BLOCK = {BLOCK}
exp, expm1 = {"exp32, expm1_32" if real == "float32" else "math.exp, math.expm1"}
'''
