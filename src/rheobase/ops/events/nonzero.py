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

__all__ = ["nonzero"]

# Whether a processor presses the marked lanes of a register together in one instruction.
_PRESSES = BYTES == 64
_PLACE = ir.IntType(32)


@njit(nogil=True, error_model="numpy")
def nonzero(line, which, values):
    """Write places and values of what is not 0 in ``line``; how many there are.

    ``which`` and ``values`` have room for a line in which nothing is.
    """
    prefer_wide_vectors()
    count, lanes, whole = 0, BYTES // line.itemsize, 0
    if _PRESSES:
        whole = line.size // lanes * lanes
        for j in range(0, whole, lanes):
            count = _press(line, j, which, values, count)
    begin = count
    for j in range(whole, line.size):
        which[count] = j
        count += 1 if line[j] != 0 else 0
    for i in range(begin, count):
        values[i] = line[which[i]]
    return count


@intrinsic
def _press(typing_context, line, at, which, values, count):
    """`nonzero` of a register of ``line`` from ``at`` on; the new count. It writes whole ones."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line, at, which, values, count = arguments
        size = signature.args[0].dtype.bitwidth // 8
        lanes = BYTES // size
        numbers = ir.VectorType(ir.FloatType() if size == 4 else ir.DoubleType(), lanes)
        places = ir.VectorType(_PLACE, lanes)

        def place(which_one: int, array: Any, index: Any, kind: Any) -> Any:
            start = address(context, builder, signature.args[which_one], array, index)
            return pointer(builder, start, kind)

        given = builder.load(place(0, line, at, numbers), align=size)
        # What is no number is not 0.
        some = builder.fcmp_unordered("!=", given, ir.Constant(numbers, None))
        first = everywhere(builder, builder.trunc(at, _PLACE), places)
        there = builder.add(first, ir.Constant(places, list(range(lanes))))
        for which_one, array, value, step in ((2, which, there, 4), (3, values, given, size)):
            pressed = _pressed(builder, value, some)
            builder.store(pressed, place(which_one, array, count, value.type), align=step)
        bits = builder.bitcast(some, ir.IntType(lanes))
        return builder.add(count, builder.zext(builder.ctpop(bits), WORD))

    return types.int64(line, types.int64, which, values, types.int64), generate


def _pressed(builder: Any, value: Any, some: Any) -> Any:
    """The marked lanes, one behind another."""
    kind = ir.FunctionType(value.type, [value.type, some.type, value.type])
    name = f"v{value.type.count}{value.type.element.intrinsic_name}"
    press = get_or_insert_function(
        builder.module, kind, f"llvm.experimental.vector.compress.{name}"
    )
    return builder.call(press, [value, some, ir.Constant(value.type, ir.Undefined)])
