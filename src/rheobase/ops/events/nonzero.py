"""Places and values of what is not 0 in a line of numbers."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from rheobase.ops.llvm_lang import BYTES, WORD, address, everywhere, pointer
from rheobase.ops.numba_lang import prefer_wide_vectors

__all__ = ["nonzero", "places"]

# Whether a processor presses the marked lanes of a register together in one instruction.
_PRESSES = BYTES == 64
_PLACE = ir.IntType(32)


@njit(nogil=True, error_model="numpy")
def nonzero(line, which, values):
    """Write places and values of what is not 0 in ``line``; how many there are.

    ``which`` and ``values`` have room for a line in which nothing is.
    """
    count = places(line, 1, which)
    for i in range(count):
        values[i] = line[which[i]]
    return count


@njit(nogil=True, error_model="numpy")
def places(line, step, which):
    """Write places of what is not 0 in ``line``, times ``step``; how many there are.

    ``which`` has room for a line in which nothing is.
    """
    prefer_wide_vectors()
    # A register has places as int32.
    count, whole, lanes = 0, 0, BYTES // max(line.itemsize, 4)
    if _PRESSES:
        whole = line.size // lanes * lanes
        for j in range(0, whole, lanes):
            count = _press_places(line, j, step, which, count)
    # Written at every number, kept where it is not 0: no branch to mispredict.
    for j in range(whole, line.size):
        which[count] = j * step
        count += 1 if line[j] != 0 else 0
    return count


@intrinsic
def _press_places(typing_context, line, at, step, which, count):
    """Places times ``step`` of what is not 0 from ``at`` on, behind ``count`` others.

    A whole register is written; the new count.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line, at, step, which, count = arguments
        some = _not_zero(context, builder, signature.args[0], line, at)
        kind = ir.VectorType(_PLACE, some.type.count)
        lanes = ir.Constant(kind, list(range(kind.count)))
        there = builder.add(everywhere(builder, builder.trunc(at, _PLACE), kind), lanes)
        there = builder.mul(there, everywhere(builder, builder.trunc(step, _PLACE), kind))
        start = address(context, builder, signature.args[3], which, count)
        builder.store(_pressed(builder, there, some), pointer(builder, start, kind), align=4)
        bits = builder.bitcast(some, ir.IntType(kind.count))
        return builder.add(count, builder.zext(builder.ctpop(bits), WORD))

    return types.int64(line, types.int64, types.int64, which, types.int64), generate


def _not_zero(context: Any, builder: Any, kind: Any, line: Any, at: Any) -> Any:
    """Which of a register of ``line`` from ``at`` on are not 0."""
    size = kind.dtype.bitwidth // 8
    numbers = ir.VectorType(context.get_data_type(kind.dtype), BYTES // max(size, 4))
    start = address(context, builder, kind, line, at)
    given = builder.load(pointer(builder, start, numbers), align=size)
    zeros = ir.Constant(numbers, None)
    if kind.dtype in (types.float32, types.float64):
        return builder.fcmp_unordered("!=", given, zeros)  # NaN is not 0
    return builder.icmp_unsigned("!=", given, zeros)


def _pressed(builder: Any, value: Any, some: Any) -> Any:
    """The marked lanes, one behind another."""
    kind = ir.FunctionType(value.type, [value.type, some.type, value.type])
    name = f"v{value.type.count}{value.type.element.intrinsic_name}"
    press = get_or_insert_function(
        builder.module, kind, f"llvm.experimental.vector.compress.{name}"
    )
    return builder.call(press, [value, some, ir.Constant(value.type, ir.Undefined)])
