"""The text of a neuron's fused CPU kernels, made from its three scalar functions.

One pass over memory each way. Columns are taken in blocks that stay in cache while all T steps
run. The backward pass first runs the block forward again, keeping the charged membranes in a
scratch of T x BLOCK, then goes back in time: nothing but the input need be saved.
"""

from __future__ import annotations

from dataclasses import dataclass

from rheobase.ops.scan.spec import ScanSpec
from rheobase.ops.translate import Binding, translate

__all__ = ["BLOCK", "Variant", "backward_source", "forward_source"]

BLOCK = 4096

_CALLS = {
    "abs": "abs({0})",
    "atan": "math.atan({0})",
    "cos": "math.cos({0})",
    "erf": "math.erf({0})",
    "floor": "np.floor({0})",
    "indicator": "(ONE if {0} else ZERO)",
    "log": "math.log({0})",
    "maximum": "({0} if {0} > {1} else {1})",
    "minimum": "({0} if {0} < {1} else {1})",
    "round": "np.rint({0})",
    "sign": "(ONE if {0} > ZERO else (-ONE if {0} < ZERO else ZERO))",
    "sin": "math.sin({0})",
    "tanh": "math.tanh({0})",
    "where": "({1} if {0} else {2})",
}
# What decides a spike is rounded as the reference rounds it. A slope may fuse multiply and add.
_EXACT = '@njit(inline="always")'
_DECORATORS = {"derivative": '@njit(fastmath={"contract"})'}
_EXP = {"float32": "exp32({0})", "float64": "math.exp({0})"}


@dataclass(frozen=True)
class Variant:
    """What a kernel is specialised on, besides the neuron.

    ``dtype``: of input and spikes; bfloat16 travels as int16 bits and is computed in float32.
    ``kinds``: for each coefficient of ``spec.names``, "s" a number or "v" a vector, in upper case
    when its gradient is wanted. ``tap``: "h", "v" or "" (no membrane sequence). ``unroll``: how
    many steps one sweep over a block takes, a divisor of T; the membrane stays in a register
    between them. ``dense``: steps follow each other without a gap; the compiler then knows more.
    ``summed``: the input is one image for all steps, and its gradient the sum over them.
    ``as_bytes``: spikes are written as uint8.
    """

    spec: ScanSpec
    dtype: str
    kinds: str
    tap: str
    unroll: int = 1
    dense: bool = False
    summed: bool = False
    as_bytes: bool = False

    @property
    def compute(self) -> str:
        """The dtype of the arithmetic."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    def load(self, value: str) -> str:
        """Read one element of input."""
        return f"bfloat16_to_float({value})" if self.dtype == "bfloat16" else value

    def store(self, value: str) -> str:
        """Write one element of output."""
        return f"float_to_bfloat16({value})" if self.dtype == "bfloat16" else value

    @property
    def vectors(self) -> list[str]:
        """Names of the coefficients that are vectors."""
        return [n for n, k in zip(self.spec.names, self.kinds, strict=True) if k in "vV"]

    @property
    def wanted(self) -> list[str]:
        """Names of the coefficients whose gradient is wanted."""
        return [n for n, k in zip(self.spec.names, self.kinds, strict=True) if k.isupper()]

    @property
    def needs_input(self) -> bool:
        """Whether the way back needs the input: for the gradients of its gain or of charge."""
        return self.needs_before or "input_gain" in self.wanted

    @property
    def needs_before(self) -> bool:
        """Whether the partials of charge need its arguments: for coefficients' gradients.

        Where a charge is linear in u and x, its partials by those two are constants.
        """
        return not self.spec.charge_functions.linear or any(
            name in self.wanted for name in self.spec.charge_names
        )

    def gradient(self, name: str) -> str:
        """A coefficient's gradient at one step: the sum over the functions that it enters."""
        if name in self.spec.input_names:
            return "g_x * raw#" if name == "input_gain" else "g_x"
        terms = []
        if name in self.spec.charge_names:
            terms.append(f"g_h * charge_by_{name}")
        if name == "threshold":
            terms.append("g_z * z_by_threshold")
        if name in self.spec.reset_names:
            terms.append(f"g_u * reset_by_{name}")
        return " + ".join(terms)

    def forward_parameters(self) -> dict[str, str]:
        """Name and kind of what the forward kernel is called with (see `ops.native.Kernel`)."""
        sequence, real = f"{self.dtype}*", f"{self.compute}*"
        spikes = "uint8*" if self.as_bytes else sequence
        return {
            "x": sequence, "x_step": "int64", "spikes": spikes, "first": real,
            "first_step": "int64", "last": real, "tap": real, "steps": "int64", "size": "int64",
            "chunk": "int64", **self._coefficients(),
        }  # fmt: skip

    def backward_parameters(self) -> dict[str, str]:
        """The same for the backward kernel."""
        sequence, real = f"{self.dtype}*", f"{self.compute}*"
        sums: dict[str, str] = {}
        for name in self.wanted:
            sums |= {f"{name}_grad": "float64*", f"{name}_extent": "int64"}
        return {
            "g": sequence, "g_step": "int64", "g_tap": real, "x": sequence, "x_step": "int64",
            "first": real, "first_step": "int64", "gx": sequence, **sums, "steps": "int64",
            "size": "int64", "chunk": "int64", **self._coefficients(),
        }  # fmt: skip

    def _coefficients(self) -> dict[str, str]:
        parts: dict[str, str] = {}
        for name in self.spec.names:
            if name in self.vectors:
                parts |= {name: f"{self.compute}*", f"{name}_count": "int64",
                          f"{name}_inner": "int64", f"{name}_step": "int64"}  # fmt: skip
            else:
                parts[name] = self.compute
        return parts

    def read_input(self, row: str) -> tuple[str, ...]:
        """Lines that load a column's input, as it is and as the neuron takes it."""
        load = self.load(f"{row}[j]")
        if not self.spec.normed:
            return (f"x# = {load}",)
        return (f"raw# = {load}", f"x# = raw# * {self.at('input_gain')} + {self.at('input_shift')}")

    def values(self, names: tuple[str, ...]) -> str:
        """Coefficients at column j, as call arguments with a leading comma each."""
        return "".join(f", {self.at(name)}" for name in names)

    def at(self, name: str) -> str:
        """A coefficient at column j."""
        return f"{name}_at[j]" if name in self.vectors else name


def _module(variant: Variant, functions: str, kernel: str) -> str:
    real = variant.compute
    return f'''"""Fused CPU kernel of {variant.spec.key}, {variant.dtype}; made by rheobase."""
import math
import numpy as np
from numba import njit
from rheobase.ops.numba_lang import (
    bfloat16_to_float, exp32, float_to_bfloat16, gather, prefer_wide_vectors, scatter
)

real = np.{real}
ONE = real(1.0)
ZERO = real(0.0)
BLOCK = 4096

{functions}

{kernel}
'''


def _functions(variant: Variant, backward: bool) -> str:
    spec = variant.spec
    binding = Binding({**_CALLS, "exp": _EXP[variant.compute]}, literal="real({0})")
    wanted = {
        "charge": spec.charge_functions.value,
        "argument": spec.fire_functions.argument,
        "quantize": spec.fire_functions.quantize,
        "reset": spec.reset_functions.value,
    }
    if backward:
        wanted |= {
            "charge_partials": spec.charge_functions.partials,
            "argument_partials": spec.fire_functions.partials,
            "reset_partials": spec.reset_functions.partials,
            "derivative": spec.surrogate_functions.derivative,
        }
    return "\n\n".join(
        translate(f, n, binding, _DECORATORS.get(n, _EXACT)) for n, f in wanted.items()
    )


def _gather(variant: Variant, indent: int, time_varying: bool) -> str:
    """Fill the vectors' block buffers: once a block, or at each step where they vary in time."""
    lines = []
    for name in variant.vectors:
        base = f"t * {name}_step" if time_varying else "0"
        test = f"{name}_step != 0" if time_varying else f"{name}_step == 0"
        if not time_varying:
            test += f" and (lo == begin or not {_alike(name)})"
        call = f"gather({name}_at, {name}, {base}, {name}_count, {name}_inner, lo, n)"
        lines.append(f"if {test}: {call}")
    return _indented(lines, indent)


def _alike(name: str) -> str:
    """Whether a vector is the same in every block: channels last, and blocks of whole pixels.

    It is then read once, and the sums of its gradient run on from block to block.
    """
    return f"({name}_step == 0 and {name}_inner == 1 and BLOCK % {name}_count == 0)"


def _indented(lines: list[str], indent: int) -> str:
    pad = " " * indent
    return "\n".join(pad + line for line in lines) if lines else pad + "pass"


def _buffers(variant: Variant, indent: int) -> str:
    return _indented([f"{n}_at = np.empty(BLOCK, real)" for n in variant.vectors], indent)


def _each_step(variant: Variant, indent: int, *lines: str, back: bool = False) -> str:
    """The lines once for every unrolled step, its number in the place of ``#``.

    In a sweep, all steps load before any stores: rows of a power of two lie a multiple of 4 KiB
    apart, and a load behind a store to the same place in another page waits for it.
    """
    steps = range(variant.unroll - 1, -1, -1) if back else range(variant.unroll)
    return _indented([line.replace("#", str(k)) for k in steps for line in lines if line], indent)


def _row(array: str, step: str = "size") -> str:
    """A block's row of step ``t + #``."""
    return f"{array}[(t + #) * {step} + lo : (t + #) * {step} + lo + n]"


def _scratch(array: str) -> str:
    return f"{array}[(t + #) * BLOCK : (t + #) * BLOCK + n]"


def forward_source(variant: Variant) -> str:
    """The module of the forward kernel, with a function ``kernel``."""
    spec, v = variant.spec, variant
    rows = (
        f"row_x# = {_row('x', 'x_step')}",
        f"row_s# = {_row('spikes')}",
        f"row_tap# = {_row('tap')}" if v.tap else "",
    )
    step = (
        f"h = charge(v, x#{v.values(spec.charge_names)})",
        f"z = argument(h{v.values(('threshold',))})",
        f"s# = quantize(z{v.values(spec.quantize_names)})",
        f"v = reset(h, s#{v.values(spec.reset_names)})",
        f"tap# = {v.tap}" if v.tap else "",
    )
    spike = "np.uint8(s#)" if v.as_bytes else v.store("s#")
    stores = ("row_tap#[j] = tap#" if v.tap else "", f"row_s#[j] = {spike}")
    kernel = f"""
@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(v.forward_parameters())}):
    prefer_wide_vectors()
    {"x_step = size" if v.dense else "pass"}
    u = np.empty(BLOCK, real)
{_buffers(v, 4)}
    begin = first_chunk * chunk
    for lo in range(begin, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
        if first_step == 0:
            u[:n] = first[0]
        else:
            u[:n] = first[lo : lo + n]
{_gather(v, 8, time_varying=False)}
        for t in range(0, steps, {v.unroll}):
{_each_step(v, 12, *rows)}
{_gather(v, 12, time_varying=True)}
            for j in range(n):
                v = u[j]
{_each_step(v, 16, *v.read_input("row_x#"))}
{_each_step(v, 16, *step)}
{_each_step(v, 16, *stores)}
                u[j] = v
        if last.size > 0:
            last[lo : lo + n] = u[:n]
"""
    return _module(variant, _functions(variant, backward=False), kernel)


def _partial_names(function: str, names: tuple[str, ...]) -> str:
    return "".join(f", {function}_by_{n}" for n in names)


def backward_source(variant: Variant) -> str:
    """The module of the backward kernel, with a function ``kernel``."""
    spec, v = variant.spec, variant
    sums = [f"{n}_sum = np.empty(BLOCK, real)" for n in v.wanted]
    row_x = f"row_x# = {_row('x', 'x_step')}"
    row_h = f"row_h# = {_scratch('charged')}"
    row_u = f"row_u# = {_scratch('before')}" if v.needs_before else ""
    again = (
        "u# = v" if v.needs_before else "",
        f"h# = charge(v, x#{v.values(spec.charge_names)})",
        f"s = quantize(argument(h#{v.values(('threshold',))}){v.values(spec.quantize_names)})",
        f"v = reset(h#, s{v.values(spec.reset_names)})",
    )
    kept = ("row_h#[j] = h#", "row_u#[j] = u#" if v.needs_before else "")
    loads = (
        *(v.read_input("row_x#") if v.needs_input else ()),
        "u# = row_u#[j]" if v.needs_before else "",
        "h# = row_h#[j]",
        f"g# = {v.load('row_g#[j]')}",
        "gt# = row_gt#[j]" if v.tap else "",
    )
    rows = (
        row_x if v.needs_input else "",
        row_h,
        row_u,
        f"row_g# = {_row('g', 'g_step')}",
        "" if v.summed else f"row_gx# = {_row('gx')}",
        f"row_gt# = {_row('g_tap')}" if v.tap else "",
    )
    store_sum = (
        [
            "row_gx = gx[lo : lo + n]",
            "for j in range(n):",
            f"    row_gx[j] = {v.store('gx_sum[j]')}",
        ]
        if v.summed
        else []
    )
    kernel = f"""
@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(v.backward_parameters())}):
    prefer_wide_vectors()
    {_strides(v)}
    charged = np.empty(steps * BLOCK, real)
    before = np.empty({"steps * BLOCK" if v.needs_before else "0"}, real)
    g_carry = np.empty(BLOCK, real)
    gx_sum = np.empty({"BLOCK" if v.summed else "0"}, real)
    u = np.empty(BLOCK, real)
{_buffers(v, 4)}
{_indented(sums, 4)}
    begin = first_chunk * chunk
    for lo in range(begin, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
        which = lo // chunk
        opens = lo == which * chunk
        closes = lo + BLOCK >= min((which + 1) * chunk, size)
        if first_step == 0:
            u[:n] = first[0]
        else:
            u[:n] = first[lo : lo + n]
        g_carry[:n] = ZERO
        {"gx_sum[:n] = ZERO" if v.summed else "pass"}
{_gather(v, 8, time_varying=False)}
{_indented(_clear(v), 8)}
        for t in range(0, steps, {v.unroll}):
{_each_step(v, 12, row_x, row_h, row_u)}
{_gather(v, 12, time_varying=True)}
            for j in range(n):
                v = u[j]
{_each_step(v, 16, *v.read_input("row_x#"))}
{_each_step(v, 16, *again)}
{_each_step(v, 16, *kept)}
                u[j] = v
        for t in range(steps - {v.unroll}, -1, -{v.unroll}):
{_each_step(v, 12, *rows)}
{_gather(v, 12, time_varying=True)}
            for j in range(n):
                carry = g_carry[j]
{_each_step(v, 16, *loads)}
{_each_step(v, 16, *_step_back(v), back=True)}
{_each_step(v, 16, "gx_sum[j] += gx#" if v.summed else f"row_gx#[j] = {v.store('gx#')}")}
                g_carry[j] = carry
{_flush(v, per_step=True)}
{_flush(v, per_step=False)}
{_indented(store_sum, 8)}
"""
    return _module(variant, _functions(variant, backward=True), kernel)


def _strides(variant: Variant) -> str:
    """What the compiler may know of the distances between steps."""
    if not variant.dense:
        return "pass"
    return "x_step, g_step = 0, size" if variant.summed else "x_step = g_step = size"


def _step_back(variant: Variant) -> tuple[str, ...]:
    """One column's step back in time: from the gradients after it to those before it."""
    spec, v = variant.spec, variant
    before = "u#, x#" if v.needs_before else "ZERO, ZERO"
    return (
        f"z = argument(h#{v.values(('threshold',))})",
        f"s = quantize(z{v.values(spec.quantize_names)})",
        f"charge_by_u, charge_by_x{_partial_names('charge', spec.charge_names)} = "
        f"charge_partials({before}{v.values(spec.charge_names)})",
        f"z_by_h, z_by_threshold = argument_partials(h#{v.values(('threshold',))})",
        f"reset_by_h, reset_by_s{_partial_names('reset', spec.reset_names)} = "
        f"reset_partials(h#, s{v.values(spec.reset_names)})",
        "g_u = carry" + (" + gt#" if v.tap == "v" else ""),
        "g_s = g#" + ("" if spec.detach_reset else " + g_u * reset_by_s"),
        f"g_z = g_s * derivative(z{v.values(spec.surrogate_names)})",
        "g_h = g_u * reset_by_h + g_z * z_by_h" + (" + gt#" if v.tap == "h" else ""),
        "g_x = g_h * charge_by_x",
        f"gx# = g_x * {v.at('input_gain')}" if spec.normed else "gx# = g_x",
        "carry = g_h * charge_by_u",
        *(f"{n}_sum[j] += {v.gradient(n) or 'ZERO'}" for n in v.wanted),
    )


def _clear(variant: Variant) -> list[str]:
    """Begin a block's sums anew, or a chunk's where they run on from block to block."""
    lines = []
    for name in variant.wanted:
        test = f"opens or not {_alike(name)}" if name in variant.vectors else "opens"
        lines.append(f"if {test}: {name}_sum[:n] = ZERO")
    return lines


def _flush(variant: Variant, per_step: bool) -> str:
    """Move sums into the chunk's row of the gradient: each step's, or a block's or chunk's."""
    lines = []
    # What has run on is as long as the chunk's first block.
    whole = "min(BLOCK, size - which * chunk)"
    for name in variant.wanted:
        start = f"scatter({name}_grad, {name}_sum, which * {name}_extent"
        place = f"{name}_count, {name}_inner, lo"
        if name not in variant.vectors:
            if not per_step:
                lines.append(f"if closes: {start}, 1, BLOCK, 0, {whole})")
        elif per_step:
            lines.append(f"if {name}_step != 0: {start} + t * {name}_step, {place}, n)")
            lines.append(f"if {name}_step != 0: {name}_sum[:n] = ZERO")
        else:
            lines.append(f"if {_alike(name)}:")
            lines.append(f"    if closes: {start}, {place}, {whole})")
            lines.append(f"elif {name}_step == 0: {start}, {place}, n)")
    return _indented(lines, 12 if per_step else 8)
