"""Products of matrices in the caches: the sums of a tile stay in registers.

A library's product first copies its operands to where they lie well, which for matrices of a
hundred rows takes as long as a fifth of the product. Here every sum is taken in the order of
``depth``, from what it is added to on: it depends neither on the rows beside it nor on how a long
sum is cut.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rheobase.ops.llvm_lang import BYTES, address, everywhere, loop, number, pointer
from rheobase.ops.numba_lang import named, prefer_wide_vectors
from rheobase.ops.products.sizes import ROWS

__all__ = ["multiply"]

# Registers of a tile's row.
_VECTORS = 4 if BYTES == 64 else 2


def _tile(vectors: int) -> Callable[..., Any]:
    """One tile of `multiply`.

    ``tile(c, at, c_row, a, start, a_row, a_step, b, first, b_step, depth, add)``: ``c`` begins at
    the index ``at``, ``a`` at ``start`` and ``b`` at ``first``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, at, c_row, a, start, a_row, a_step, b, first, b_step, depth, add = arguments
        numbers = signature.args[0].dtype
        kind, size = context.get_data_type(numbers), number(numbers.bitwidth // 8)
        vector = ir.VectorType(kind, 8 * BYTES // numbers.bitwidth)

        def part(base: Any, i: int) -> Any:
            return pointer(builder, builder.add(base, number(BYTES * i)), vector)

        c = address(context, builder, signature.args[0], c, at)
        a = address(context, builder, signature.args[3], a, start)
        b = address(context, builder, signature.args[7], b, first)
        c_row, a_row, a_step, b_step = (
            builder.mul(n, size) for n in (c_row, a_row, a_step, b_step)
        )
        rows = [builder.mul(a_row, number(row)) for row in range(ROWS)]
        places = [
            part(builder.add(c, builder.mul(c_row, number(row))), i)
            for row in range(ROWS)
            for i in range(vectors)
        ]
        sums = _what_is(builder, builder.icmp_signed("!=", add, number(0)), places, vector)
        with loop(builder, depth, [a, b, *sums]) as (it, (left, right, *sums)):
            factors = [
                everywhere(
                    builder, builder.load(pointer(builder, builder.add(left, row), kind)), vector
                )
                for row in rows
            ]
            values = [builder.load(part(right, i), align=4) for i in range(vectors)]
            pairs = itertools.product(factors, values)
            sums = [
                _add_product(builder, *pair, total) for pair, total in zip(pairs, sums, strict=True)
            ]
            it.go_on([builder.add(left, a_step), builder.add(right, b_step), *sums])
        for place, total in zip(places, it.values[2:], strict=True):
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing_context, c, at, c_row, a, start, a_row, a_step, b, first, b_step, depth, add):
        word = types.int64
        return types.none(c, word, word, a, word, word, word, b, word, word, word, word), generate

    return tile


def _what_is(builder: Any, asked: Any, places: list[Any], vector: Any) -> list[Any]:
    """The vectors at these places if asked for, else zeros."""
    before = builder.block
    with builder.if_then(asked):
        loaded = [builder.load(place, align=4) for place in places]
        there = builder.block
    values = []
    for value in loaded:
        phi = builder.phi(vector)
        phi.add_incoming(value, there)
        phi.add_incoming(ir.Constant(vector, None), before)
        values.append(phi)
    return values


def _add_product(builder: Any, factor: Any, value: Any, total: Any) -> Any:
    """``factor * value + total``, rounded once."""
    product = builder.fmul(factor, value, flags=("contract",))
    return builder.fadd(product, total, flags=("contract",))


def _panel(vectors: int) -> Callable[..., Any]:
    """The tiles below each other, from column ``first`` on."""
    tile = _tile(vectors)

    @njit(nogil=True, error_model="numpy")
    @named(vectors)
    def panel(c, c_row, a, a_row, a_step, b, b_step, first, rows, depth, add):
        prefer_wide_vectors()
        for row in range(0, rows, ROWS):
            tile(
                c, row * c_row + first, c_row, a, row * a_row, a_row, a_step, b, first, b_step,
                depth, add,
            )  # fmt: skip

    return panel


_wide_panel, _narrow_panel = _panel(_VECTORS), _panel(1)


@njit(nogil=True, error_model="numpy")
def multiply(c, c_row, a, a_row, a_step, b, b_step, rows, columns, depth, add):
    """``c = a b``, or ``c += a b`` if ``add`` is not 0.

    The matrices begin where the arrays of one axis do, all float32 or all float64; ``depth`` is at
    least 1. Between rows of ``a`` lie ``a_row`` numbers and between their values ``a_step``, so
    that a transposed ``a`` is one with both exchanged. Whole `ROWS` and `COLUMNS` are read and
    written.
    """
    narrow = BYTES // c.itemsize
    column = 0
    while column + _VECTORS * narrow <= columns:
        _wide_panel(c, c_row, a, a_row, a_step, b, b_step, column, rows, depth, add)
        column += _VECTORS * narrow
    while column < columns:
        _narrow_panel(c, c_row, a, a_row, a_step, b, b_step, column, rows, depth, add)
        column += narrow
