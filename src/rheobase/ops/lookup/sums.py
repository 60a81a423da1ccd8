"""The innermost loop: rows of a table, looked up by codes and added up in registers."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from rheobase.ops.lookup import sizes
from rheobase.ops.lookup.sizes import CODES, VECTOR

__all__ = ["PIXELS", "adder"]

PIXELS = sizes.PIXELS if binding.get_host_cpu_features().get("avx512f") else sizes.PIXELS // 2
"""Pixels that are added up side by side: additions of one would wait for each other."""

_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
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
    table_size = _number(CODES * VECTOR * vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, into_step, start, start_step, tables, codes, line, lines, count = arguments

        def parts(base: Any, step: Any) -> list[Any]:
            return [
                _pointer(builder, builder.add(base, _plus(builder, step, p, v)), vector)
                for p in range(PIXELS)
                for v in range(vectors)
            ]

        sums = [builder.load(part, align=4) for part in parts(start, start_step)]
        places = [
            builder.load(_pointer(builder, builder.add(codes, _number(8 * p)), _WORD))
            for p in range(PIXELS)
        ]
        with _loop(builder, lines, [tables, _number(0), *sums]) as (outer, (table, offset, *sums)):
            with _loop(builder, count, [table, offset, *sums]) as (inner, (table, at, *sums)):
                added = []
                for p, place in enumerate(places):
                    code = builder.load(_pointer(builder, builder.add(place, at), _BYTE))
                    row = builder.mul(builder.zext(code, _WORD), _number(8))
                    row = builder.add(table, row)
                    for v in range(vectors):
                        address = builder.add(row, _number(v * VECTOR))
                        value = builder.load(_pointer(builder, address, vector), align=4)
                        added.append(builder.fadd(sums[p * vectors + v], value))
                inner.go_on([builder.add(table, table_size), builder.add(at, _number(1)), *added])
            table, _, *sums = inner.values
            outer.go_on([table, builder.add(offset, line), *sums])
        for value, part in zip(outer.values[2:], parts(into, into_step), strict=True):
            builder.store(value, part, align=4)
        return context.get_dummy_value()

    @intrinsic
    def add(typing_context, into, into_step, start, start_step, tables, codes, line, lines, count):
        return types.none(*[types.int64] * 9), generate

    return add


class _loop:
    """A loop in LLVM's form, run at least once: values that go from turn to turn."""

    def __init__(self, builder: Any, turns: Any, values: list[Any]) -> None:
        self.builder, self.turns, self.values = builder, turns, values

    def __enter__(self) -> tuple[_loop, list[Any]]:
        before, self.block = self.builder.block, self.builder.append_basic_block("turn")
        self.builder.branch(self.block)
        self.builder.position_at_end(self.block)
        self.kept = []
        for value in (_number(0), *self.values):
            phi = self.builder.phi(value.type)
            phi.add_incoming(value, before)
            self.kept.append(phi)
        return self, self.kept[1:]

    def go_on(self, values: list[Any]) -> None:
        """The values for the next turn, and at last for what follows the loop."""
        self.values = values

    def __exit__(self, *problem: object) -> None:
        turn = self.builder.add(self.kept[0], _number(1))
        for phi, value in zip(self.kept, (turn, *self.values), strict=True):
            phi.add_incoming(value, self.builder.block)
        more = self.builder.icmp_signed("<", turn, self.turns)
        behind = self.builder.append_basic_block("behind")
        self.builder.cbranch(more, self.block, behind)
        self.builder.position_at_end(behind)


def _number(value: int) -> Any:
    return ir.Constant(_WORD, value)


def _plus(builder: Any, step: Any, pixel: int, vector: int) -> Any:
    return builder.add(builder.mul(step, _number(pixel)), _number(vector * VECTOR))


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())
