"""Matrices turned round in squares that stay in registers."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rheobase.ops.llvm_lang import BYTES, address, number, pointer
from rheobase.ops.numba_lang import prefer_wide_vectors

__all__ = ["turn"]

_SIDE = BYTES // 4
_VECTOR = ir.VectorType(ir.FloatType(), _SIDE)


@intrinsic
def _square(typing_context, into, at, into_row, x, start, x_row):
    """A square of ``x`` from ``start`` on, turned round, to ``into`` from ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, at, into_row, x, start, x_row = arguments

        def rows(which: int, array: Any, first: Any, step: Any) -> list[Any]:
            base = address(context, builder, signature.args[which], array, first)
            step = builder.mul(step, number(4))
            places = [builder.add(base, builder.mul(step, number(i))) for i in range(_SIDE)]
            return [pointer(builder, place, _VECTOR) for place in places]

        lines = [builder.load(place, align=4) for place in rows(3, x, start, x_row)]
        for place, line in zip(rows(0, into, at, into_row), _turned(builder, lines), strict=True):
            builder.store(line, place, align=4)
        return context.get_dummy_value()

    word = types.int64
    return types.none(into, word, word, x, word, word), generate


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """Rows to columns: corners of 2x2 squares change places, then of 4x4, ..."""
    step = 1
    while step < _SIDE:
        stay = [j if j & step == 0 else _SIDE + j - step for j in range(_SIDE)]
        go = [j + step if j & step == 0 else _SIDE + j for j in range(_SIDE)]
        changed = list(lines)
        for i in range(_SIDE):
            if i & step == 0:
                pair = lines[i], lines[i + step]
                changed[i] = builder.shuffle_vector(*pair, _mask(stay))
                changed[i + step] = builder.shuffle_vector(*pair, _mask(go))
        lines, step = changed, 2 * step
    return lines


def _mask(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), _SIDE), places)


@njit(nogil=True, error_model="numpy")
def turn(into, x, rows, columns):
    """``into[j, i] = x[i, j]`` of float32 ``[rows, columns]``, both of whole 16s."""
    prefer_wide_vectors()
    for i in range(0, rows, _SIDE):
        for j in range(0, columns, _SIDE):
            _square(into, j * rows + i, rows, x, i * columns + j, columns)
