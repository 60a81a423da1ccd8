"""The innermost loop: rows of a table, looked up by codes and added up in registers."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rheobase.ops.llvm_lang import BYTES, WORD, loop, number, pointer
from rheobase.ops.lookup import sizes
from rheobase.ops.lookup.sizes import CODES, VECTOR

__all__ = ["PIXELS", "adder"]

PIXELS = sizes.PIXELS if BYTES == 64 else sizes.PIXELS // 2
"""Pixels that are added up side by side: additions of one would wait for each other."""

_BYTE = ir.IntType(8)
_KINDS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


def adder(dtype: str, vectors: int) -> Callable[..., Any]:
    """``add(into, into_step, start, start_step, tables, codes, line, lines, count)``.

    For each of `PIXELS` pixels p, of rows of so many vectors: ``into[p] = start[p] +`` the rows of
    ``tables`` at the codes of p, of which ``lines`` stretches of ``count`` lie ``line`` bytes
    apart, the first at the address ``codes[p]``. A table of `CODES` rows for each code lies behind
    the other. A code is the number of its row times ``8 * vectors``. All but counts are addresses
    or distances in bytes.
    """
    kind = _KINDS[dtype]
    vector = ir.VectorType(kind, VECTOR // (4 if dtype == "float32" else 8))
    table_size = number(CODES * VECTOR * vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, into_step, start, start_step, tables, codes, line, lines, count = arguments

        def parts(base: Any, step: Any) -> list[Any]:
            return [
                pointer(builder, builder.add(base, _plus(builder, step, p, v)), vector)
                for p in range(PIXELS)
                for v in range(vectors)
            ]

        sums = [builder.load(part, align=4) for part in parts(start, start_step)]
        places = [
            builder.load(pointer(builder, builder.add(codes, number(8 * p)), WORD))
            for p in range(PIXELS)
        ]
        with loop(builder, lines, [tables, number(0), *sums]) as (outer, (table, offset, *sums)):
            with loop(builder, count, [table, offset, *sums]) as (inner, (table, at, *sums)):
                added = []
                for p, place in enumerate(places):
                    code = builder.load(pointer(builder, builder.add(place, at), _BYTE))
                    row = builder.mul(builder.zext(code, WORD), number(8))
                    row = builder.add(table, row)
                    for v in range(vectors):
                        address = builder.add(row, number(v * VECTOR))
                        value = builder.load(pointer(builder, address, vector), align=4)
                        added.append(builder.fadd(sums[p * vectors + v], value))
                inner.go_on([builder.add(table, table_size), builder.add(at, number(1)), *added])
            table, _, *sums = inner.values
            outer.go_on([table, builder.add(offset, line), *sums])
        for value, part in zip(outer.values[2:], parts(into, into_step), strict=True):
            builder.store(value, part, align=4)
        return context.get_dummy_value()

    @intrinsic
    def add(typing_context, into, into_step, start, start_step, tables, codes, line, lines, count):
        return types.none(*[types.int64] * 9), generate

    return add


def _plus(builder: Any, step: Any, pixel: int, vector: int) -> Any:
    return builder.add(builder.mul(step, number(pixel)), number(vector * VECTOR))
