"""Pieces of generated CPU kernels that numba does not bring: a vectorisable exp, bfloat16 bits."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated, no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

__all__ = [
    "arrays_do_not_overlap",
    "bfloat16_to_float",
    "copy",
    "exp32",
    "expm1_32",
    "fetch",
    "fill",
    "float_to_bfloat16",
    "gather",
    "interleave",
    "named",
    "pointer",
    "prefer_wide_vectors",
    "scatter",
    "take_number",
    "window",
]


Function = TypeVar("Function", bound=Callable[..., Any])


def named(*parts: object) -> Callable[[Function], Function]:
    """A name of its own for a function that another makes, by what it is made for.

    Compiled code that is kept knows functions by names and a number, which counts anew in each
    process: of two kernels that were compiled in different ones, one would call the other's.
    """

    def name(function: Function) -> Function:
        function.__qualname__ += "".join(f"_{part}" for part in parts)
        return function

    return name


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """The address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def fetch(typing_context: Any, address: Any) -> Any:
    """Ask for what lies at an address to be brought into the second cache, and do not wait."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        choice = ir.IntType(32)
        kinds = ir.FunctionType(ir.VoidType(), [place.type, choice, choice, choice])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kinds)
        # To read it; to be kept for long, but not in the first cache; data.
        builder.call(prefetch, [place, *(ir.Constant(choice, value) for value in (0, 2, 1))])
        return context.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def take_number(typing_context: Any, counter: Any) -> Any:
    """The int64 at ``counter``, which is then one more: no two threads get the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.voidptr), generate


@intrinsic
def _bits_to_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _float_to_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def prefer_wide_vectors(typing_context: Any) -> Any:
    """Let the compiler use 512-bit vectors in the calling function, where the processor has them.

    By default it takes half of that, for processors of 2017 that lowered their clock.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite lets pass only the attributes that it knows by name.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic(prefer_literal=True)
def interleave(typing_context: Any, count: Any) -> Any:
    """Let the compiler take ``count`` vectors at a time in the loop before this call.

    Where a column's steps wait for each other, those of other columns then fill in. By itself the
    compiler does so in short loops alone.
    """
    vectors = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        module = builder.module
        size = ir.Constant(ir.IntType(32), vectors)
        hint = module.add_metadata(["llvm.loop.interleave.count", size])
        # A loop's name is a node whose first operand is itself.
        name = ir.values.MDValue(module, (hint,), str(len(module.metadata)))
        name.operands = (name, hint)
        _last_jump_back(builder.function).set_metadata("llvm.loop", name)
        return context.get_dummy_value()

    return types.none(count), generate


def _last_jump_back(function: Any) -> Any:
    """The branch back to its head of the last loop of a function written so far."""
    order = {block: i for i, block in enumerate(function.blocks)}
    seen: set[Any] = set()
    # From the first block on; where it leads is written last, so from those not yet seen too.
    found = [
        jump for block in order if block not in seen for jump in _jumps_back(block, set(), seen)
    ]
    return max(found, key=lambda jump: order[jump[1]])[0].terminator


def _jumps_back(block: Any, above: set[Any], seen: set[Any]) -> list[tuple[Any, Any]]:
    """From a block on, blocks that jump to one on the way to them, and that one."""
    seen.add(block)
    jumps = []
    for target in block.terminator.operands if block.is_terminated else ():
        if target is block or target in above:
            jumps.append((block, target))
        elif isinstance(target, ir.Block) and target not in seen:
            jumps += _jumps_back(target, above | {block}, seen)
    return jumps


@intrinsic
def arrays_do_not_overlap(typing_context: Any) -> Any:
    """A promise about the calling function's arguments, with which its loops vectorise.

    The compiler would have to compare every pair of them at run time, and gives up on many.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def window(typing_context: Any, array: Any, start: Any, size: Any) -> Any:
    """``array[start : start + size]`` of an array of one axis, of which it must be a part.

    A slice takes the compiler several times as long: it may begin before the array, or end behind.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        whole = context.make_array(kind)(context, builder, arguments[0])
        part = context.make_array(kind)(context, builder)
        populate_array(
            part,
            data=builder.gep(whole.data, [arguments[1]]),
            shape=[arguments[2]],
            strides=whole.strides,
            itemsize=whole.itemsize,
            meminfo=None,
        )
        return part._getvalue()

    return array(array, types.int64, types.int64), generate


@njit(inline="always")
def bfloat16_to_float(bits):
    """The float32 of a bfloat16 given as int16 bits: the upper half of the word."""
    return _bits_to_float(np.int32(bits) << np.int32(16))


@njit(inline="always")
def float_to_bfloat16(value):
    """The nearest bfloat16 (half to even) of a float32, as int16 bits; NaN stays NaN."""
    bits = _float_to_bits(value)
    odd = (bits >> np.int32(16)) & np.int32(1)
    rounded = (bits + np.int32(0x7FFF) + odd) >> np.int32(16)
    return np.int16(rounded if value == value else np.int32(0x7FC0))


# The bits of 88 and of -87.3.
_HIGHEST, _LOWEST = np.int32(0x42B00000), np.uint32(0xC2AE999A)
_ONE_BITS = np.int32(0x3F800000)


@njit(fastmath={"contract"}, inline="always")
def _split_exp(x):
    """n and q with ``exp(x) = 2^n (1 + q)``; n in the last bits of an integer that begins with 0.

    n = round(x / ln 2), and q a polynomial of degree 5 in r = x - n ln 2, |r| <= ln(2)/2; of those
    that begin with r it is the one that errs least (1e-7 of 1 + q). Arguments are clipped to the
    range whose exp is a normal number: as integers, which processors compare beside what they
    multiply. As such, floats above 0 are in order, and below 0 (without a sign, above all others)
    in reverse.
    """
    clipped = np.uint32(min(_float_to_bits(x), _HIGHEST))
    x = _bits_to_float(np.int32(min(clipped, _LOWEST)))
    # A float32 as large as 1.5 * 2^23 has no places behind the point: n stands in its last bits.
    rounded = x * np.float32(1.44269504) + np.float32(12582912.0)
    n = rounded - np.float32(12582912.0)
    # ln 2 in two parts, so that n * ln 2 loses nothing.
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(0.0083125)
    p = p * r + np.float32(0.04189033)
    p = p * r + np.float32(0.16667115)
    p = p * r + np.float32(0.4999923)
    p = p * r + np.float32(1.0)
    return _float_to_bits(rounded), p * r


@njit(fastmath={"contract"})
def exp32(x):
    """exp in float32 to 2.5e-7 relative, from plain arithmetic so that the loop vectorises."""
    bits, q = _split_exp(x)
    # Times 2^n: n is added to the exponent, which begins at bit 23.
    return _bits_to_float(_float_to_bits(q + np.float32(1.0)) + np.int32(bits << np.int32(23)))


@njit(fastmath={"contract"})
def expm1_32(x):
    """exp(x) - 1 in float32, in the same way; near 0 it loses no digits."""
    bits, q = _split_exp(x)
    power = _bits_to_float(_ONE_BITS + np.int32(bits << np.int32(23)))
    return power * q + (power - np.float32(1.0))


@njit(error_model="numpy")
def copy(into, values):
    """Write ``values`` to the beginning of ``into``.

    As ``into[: values.size] = values``, whose error message takes numba a second or two to compile.
    """
    for j in range(values.size):
        into[j] = values[j]


@njit(error_model="numpy")
def fill(into, value, size):
    """``into[:size] = value``, compiled once and not in every kernel."""
    for j in range(size):
        into[j] = value


@njit(error_model="numpy")
def gather(into, values, base, count, inner, start, size):
    """``into[j] = values[base + ((start + j) // inner) % count]``, counting instead of dividing."""
    which = (start // inner) % count
    j = 0
    if inner == 1:  # channels last: the values themselves, over and over
        while j < size:
            run = min(count - which, size - j)
            copy(into[j:], values[base + which : base + which + run])
            j += run
            which = 0
        return
    left = inner - start % inner
    while j < size:
        run = min(left, size - j)
        into[j : j + run] = values[base + which]
        j += run
        left = inner
        which = which + 1 if which + 1 < count else 0


@njit(error_model="numpy", fastmath={"reassoc"})
def _total(values):
    """Their sum in float64, in the order that is fastest: many additions side by side."""
    prefer_wide_vectors()
    total = 0.0
    for k in range(values.size):
        total += values[k]
    return total


@njit(error_model="numpy")
def scatter(sums, values, base, count, inner, start, size):
    """Add ``values[j]`` to ``sums[base + ((start + j) // inner) % count]``: gather's transpose."""
    which = (start // inner) % count
    j = 0
    if inner == 1:
        while j < size:
            run = min(count - which, size - j)
            for k in range(run):
                sums[base + which + k] += values[j + k]
            j += run
            which = 0
        return
    left = inner - start % inner
    while j < size:
        run = min(left, size - j)
        sums[base + which] += _total(values[j : j + run])
        j += run
        left = inner
        which = which + 1 if which + 1 < count else 0
