"""Winograd's transforms of one tile, for a register of channels at a time.

``M d M^T`` of a square ``d`` of vectors is ``M`` on its columns, then on its rows. It is written in
LLVM's form: all that lies between is in registers, where calls on lines of channels took as long as
the arithmetic, and a second buffer took half of the first cache.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rheobase.ops.llvm_lang import BYTES, number, pointer
from rheobase.ops.numba_lang import named, prefer_wide_vectors

__all__ = ["LANES", "Matrix", "transform"]

LANES = BYTES // 4
"""Channels that are transformed at once."""

Matrix = Sequence[Sequence[float]]

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


def transform(name: str, matrix: Matrix) -> Callable[..., Any]:
    """``run(sources, targets, read, written, channels)``: ``matrix d matrix^T`` of each channel.

    ``sources`` and ``targets`` are the addresses, row by row, of the lines of channels that are
    read and written, of at least `LANES`. They hold numbers as the arrays ``read`` and ``written``
    do: float32, or the bits of bfloat16 in int16.
    """
    step = _step(matrix)

    @njit(nogil=True, error_model="numpy")
    @named(name)
    def run(sources, targets, read, written, channels):
        prefer_wide_vectors()
        for channel in range(0, channels - LANES + 1, LANES):
            step(sources, targets, read, written, channel)
        if channels % LANES:  # once more some of those before
            step(sources, targets, read, written, channels - LANES)

    return run


def _step(matrix: Matrix) -> Callable[..., Any]:
    """The same of `LANES` channels from ``at`` on."""
    targets_side, sources_side = len(matrix), len(matrix[0])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sources, targets, _, _, at = arguments
        read, written = (signature.args[i].dtype for i in (2, 3))

        def place(which: int, array: Any, k: int, dtype: Any) -> Any:
            base = context.make_array(signature.args[which])(context, builder, array).data
            line = builder.load(builder.gep(base, [number(k)]))
            return builder.add(line, builder.mul(at, number(dtype.bitwidth // 8)))

        def source(row: int, column: int) -> Any:
            return _load(builder, place(0, sources, row * sources_side + column, read), read)

        columns = [
            _times(builder, matrix, [source(row, column) for row in range(sources_side)])
            for column in range(sources_side)
        ]
        for row in range(targets_side):
            line = _times(builder, matrix, [column[row] for column in columns])
            for column, value in enumerate(line):
                k = row * targets_side + column
                _store(builder, value, place(1, targets, k, written), written)
        return context.get_dummy_value()

    @intrinsic
    def step(typing_context, sources, targets, read, written, at):
        return types.none(sources, targets, read, written, types.int64), generate

    return step


def _times(builder: Any, matrix: Matrix, values: list[Any]) -> list[Any]:
    """The matrix times a vector of registers."""
    return [_sum(builder, row, values) for row in matrix]


def _sum(builder: Any, factors: Sequence[float], values: list[Any]) -> Any:
    """``factors[0] * values[0] + ...``, the values that are taken as they are first."""
    terms = [pair for pair in zip(factors, values, strict=True) if pair[0]]
    terms.sort(key=lambda pair: pair[0] != 1.0)
    total = None
    for factor, value in terms:
        if factor == 1.0:
            total = value if total is None else builder.fadd(total, value)
        elif factor == -1.0 and total is not None:
            total = builder.fsub(total, value)
        else:
            product = builder.fmul(value, _everywhere(_FLOATS, factor), flags=("contract",))
            total = product if total is None else builder.fadd(product, total, flags=("contract",))
    return total


def _everywhere(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _load(builder: Any, place: Any, dtype: Any) -> Any:
    if dtype == types.float32:
        return builder.load(pointer(builder, place, _FLOATS), align=4)
    bits = builder.load(pointer(builder, place, _HALVES), align=2)
    upper = builder.shl(builder.zext(bits, _WORDS), _everywhere(_WORDS, 16))
    return builder.bitcast(upper, _FLOATS)


def _store(builder: Any, value: Any, place: Any, dtype: Any) -> None:
    if dtype == types.float32:
        builder.store(value, pointer(builder, place, _FLOATS), align=4)
    else:
        bits = _rounded(builder, value)
        builder.store(bits, pointer(builder, place, _HALVES), align=2)


def _rounded(builder: Any, value: Any) -> Any:
    """The nearest bfloat16 (half to even), as bits; NaN stays NaN."""
    sixteen = _everywhere(_WORDS, 16)
    bits = builder.bitcast(value, _WORDS)
    odd = builder.and_(builder.lshr(bits, sixteen), _everywhere(_WORDS, 1))
    half = builder.add(odd, _everywhere(_WORDS, 0x7FFF))
    upper = builder.lshr(builder.add(bits, half), sixteen)
    is_number = builder.fcmp_ordered("ord", value, value)
    upper = builder.select(is_number, upper, _everywhere(_WORDS, 0x7FC0))
    return builder.trunc(upper, _HALVES)
