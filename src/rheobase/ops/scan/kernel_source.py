"""Pieces of the text of a neuron's fused CPU kernels, made from its three scalar functions.

One pass over memory. Columns are taken in blocks that stay in cache while all T steps run: in
`kernel_forward`, and back in `kernel_backward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rheobase.ops.scan.spec import ScanSpec
from rheobase.ops.translate import Binding, translate

__all__ = [
    "BLOCK",
    "Variant",
    "alike",
    "buffers",
    "each_step",
    "fill_states",
    "fill_vectors",
    "indented",
    "module_text",
    "scalar_functions",
    "states",
    "step_rows",
]

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
# What decides a spike is rounded as the reference rounds it, so these functions are compiled by
# themselves, before they go into a loop. Slopes may fuse multiply and add.
_EXACT = '@njit(error_model="numpy")'
_SLOPE = '@njit(error_model="numpy", fastmath={"contract"})'
_EXP = {"float32": "exp32({0})", "float64": "math.exp({0})"}


@dataclass(frozen=True)
class Variant:
    """What a kernel is specialised on, besides the neuron.

    ``dtype``: of input and spikes; bfloat16 travels as int16 bits and is computed in float32.
    ``kinds``: for each coefficient of ``spec.names``, "s" a number, "v" a vector or "t" a vector
    that varies over time, in upper case when its gradient is wanted. ``tap``: "h", "v" or "" (no
    membrane sequence). ``unroll``: how many steps one sweep over a block takes, a divisor of T; the
    membrane stays in a register between them. ``dense``: steps follow each other without a gap; the
    compiler then knows more.
    ``rest``: how many steps stand behind the last whole sweep (of the GPU's kernels).
    ``summed``: the input is one image for all steps, and its gradient the sum over them.
    ``as_bytes``: spikes are written as uint8.
    ``stretched``: every vector is alike over long stretches of columns (see `kernel_sweep`).
    """

    spec: ScanSpec
    dtype: str
    kinds: str
    tap: str
    unroll: int = 1
    rest: int = 0
    dense: bool = False
    summed: bool = False
    as_bytes: bool = False
    stretched: bool = False

    @property
    def compute(self) -> str:
        """The dtype of the arithmetic."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def interleaved(self) -> int:
        """How many vectors of columns a sweep that charges takes at a time.

        Where charging takes long, a column's steps wait for each other, and others fill in.
        """
        return 4 if self.spec.charge_functions.long else 1

    def load(self, value: str) -> str:
        """Read one element of input."""
        return f"bfloat16_to_float({value})" if self.dtype == "bfloat16" else value

    def store(self, value: str) -> str:
        """Write one element of output."""
        return f"float_to_bfloat16({value})" if self.dtype == "bfloat16" else value

    @property
    def vectors(self) -> list[str]:
        """Names of the coefficients that are vectors."""
        return [n for n, k in zip(self.spec.names, self.kinds, strict=True) if k in "vVtT"]

    @property
    def gathered(self) -> list[str]:
        """Names of the vectors of which each column is given its own value."""
        return [] if self.stretched else self.vectors

    @property
    def timed(self) -> list[str]:
        """Names of the coefficients that vary over time."""
        return [n for n, k in zip(self.spec.names, self.kinds, strict=True) if k in "tT"]

    @property
    def wanted(self) -> list[str]:
        """Names of the coefficients whose gradient is wanted."""
        return [n for n, k in zip(self.spec.names, self.kinds, strict=True) if k.isupper()]

    @property
    def needs_input(self) -> bool:
        """Whether the way back needs the input: for the gradients of its gain or of charge."""
        return self.needs_before or "input_gain" in self.wanted

    @property
    def needs_current(self) -> bool:
        """Whether the way back needs the synapse's current."""
        return self.spec.filtered and (self.needs_before or "current_decay" in self.wanted)

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
            factor = {"input_gain": " * raw#", "current_decay": " * i#"}.get(name, "")
            return f"g_x{factor}"
        terms = []
        if name in self.spec.charge_names:
            terms.append(f"g_h * charge_by_{name}")
        if name == "threshold":
            terms.append("g_z * z_by_threshold")
        if name == "lower":
            terms.append("g_below * below_by_lower")
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
        sums = {f"{name}_grad": "float64*" for name in self.wanted}
        if sums:
            sums["sums_step"] = "int64"
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
        gain, shift = self.at("input_gain"), self.at("input_shift")
        return (f"raw# = {load}", f"x# = multiply_add(raw#, {gain}, {shift})")

    def filter_input(self) -> tuple[str, ...]:
        """Lines that charge the synapse; i# is its current before."""
        if not self.spec.filtered:
            return ()
        return ("i# = i", f"i = multiply_add(i, {self.at('current_decay')}, x#)", "x# = i")

    def fire(self, h: str, s: str) -> tuple[str, ...]:
        """Lines that fire: how far a membrane is above threshold (below the lower one), spikes."""
        options = self.values(self.spec.quantize_names)
        above = f"z# = argument({h}{self.values(('threshold',))})"
        if not self.spec.two_sided:
            return above, f"{s} = quantize(z#{options})"
        below = f"below# = argument(-{h}{self.values(('lower',))})"
        spikes = f"up#, down# = quantize(z#{options}), quantize(below#{options})"
        return above, below, spikes, f"{s} = up# - down#"

    def spikes(self, s: str) -> str:
        """Spikes as the reset takes them."""
        return "up#, down#" if self.spec.two_sided else s

    def values(self, names: tuple[str, ...]) -> str:
        """Coefficients at column j, as call arguments with a leading comma each."""
        return "".join(f", {self.at(name)}" for name in names)

    def at(self, name: str, turn: int | str = "#") -> str:
        """A coefficient at column j, in a sweep's step ``turn``."""
        if self.stretched:
            return f"{name}{turn}" if name in self.timed else name
        if name in self.timed:
            return f"{name}_at[{turn} * BLOCK + j]"
        return f"{name}_at[j]" if name in self.vectors else name

    def total(self, name: str, turn: int | str = "#") -> str:
        """Where a coefficient's gradient goes: a place of its own if that varies in time."""
        if name not in self.timed:
            return f"{name}_total"
        return f"{name}_total{turn}" if self.stretched else f"{name}_sum[{turn} * BLOCK + j]"

    def room(self, name: str) -> str:
        """How many values of a vector a sweep takes."""
        return f"{self.unroll} * BLOCK" if name in self.timed else "BLOCK"


def module_text(variant: Variant, functions: str, kernel: str) -> str:
    """A module of helpers, the scalar functions and the kernel."""
    real = variant.compute
    return f'''"""Fused CPU kernel of {variant.spec.key}, {variant.dtype}; made by rheobase."""
import math
import numpy as np
from numba import njit
from rheobase.ops.numba_lang import (
    arrays_do_not_overlap, bfloat16_to_float, copy, exp32, fill, float_to_bfloat16, gather,
    interleave, prefer_wide_vectors, scatter, window
)

real = np.{real}
ONE = real(1.0)
ZERO = real(0.0)
BLOCK = 4096

{functions}

{kernel}
'''


def scalar_functions(variant: Variant, backward: bool) -> str:
    """The neuron's functions as numba code, with their partials for the way back."""
    spec = variant.spec
    binding = Binding({**_CALLS, "exp": _EXP[variant.compute]}, literal="real({0})")
    exact = {
        "charge": spec.charge_functions.value,
        "argument": spec.fire_functions.argument,
        "quantize": spec.fire_functions.quantize,
        "reset": spec.kernels_reset.value,
    }
    slopes = {}
    if backward:
        slopes = {
            "charge_partials": spec.charge_functions.partials,
            "argument_partials": spec.fire_functions.partials,
            "reset_partials": spec.kernels_reset.partials,
            "derivative": spec.surrogate_functions.derivative,
        }
    return "\n\n".join(
        [
            f"{_EXACT}\ndef multiply_add(a, b, c):\n    return a * b + c\n",
            *(translate(f, n, binding, _EXACT) for n, f in exact.items()),
            *(translate(f, n, binding, _SLOPE) for n, f in slopes.items()),
        ]
    )


def fill_vectors(variant: Variant, indent: int, time_varying: bool) -> str:
    """Fill the vectors' block buffers: once a block, or in each sweep where they vary in time."""
    lines = []
    for name in variant.gathered:
        place = f"{name}_count, {name}_inner, lo, n)"
        if time_varying and name in variant.timed:
            lines += [
                f"gather(window({name}_at, {k} * BLOCK, n), {name}, "
                f"(t + {k}) * {name}_step, {place}"
                for k in range(variant.unroll)
            ]
        if not time_varying and name not in variant.timed:
            test = f"if lo == begin or not {alike(name)}"
            lines.append(f"{test}: gather({name}_at, {name}, 0, {place}")
    return indented(lines, indent)


def alike(name: str) -> str:
    """Whether a vector is the same in every block: channels last, and blocks of whole pixels.

    It is then read once, and the sums of its gradient run on from block to block.
    """
    return f"({name}_inner == 1 and BLOCK % {name}_count == 0)"


def indented(lines: list[str], indent: int) -> str:
    """The lines with so many blanks before each; ``pass`` for none."""
    pad = " " * indent
    return "\n".join(pad + line for line in lines) if lines else pad + "pass"


def buffers(variant: Variant, indent: int) -> str:
    """Room for the vectors' values in one block."""
    lines = [f"{n}_at = np.empty({variant.room(n)}, real)" for n in variant.gathered]
    return indented(lines, indent)


def each_step(variant: Variant, indent: int, *lines: str, back: bool = False) -> str:
    """The lines once for every unrolled step, its number in the place of ``#``.

    In a sweep, all steps load before any stores: rows of a power of two lie a multiple of 4 KiB
    apart, and a load behind a store to the same place in another page waits for it.
    """
    steps = range(variant.unroll - 1, -1, -1) if back else range(variant.unroll)
    return indented([line.replace("#", str(k)) for k in steps for line in lines if line], indent)


def step_rows(variant: Variant, sequences: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """A sweep's rows, one a step: ``row_<name><k>``.

    ``sequences``: by name, the array it lies in and how far a step is from the next.
    """
    return {
        f"row_{name}{k}": f"window({array}, (t + {k}) * {step} + lo, n)"
        for k in range(variant.unroll)
        for name, (array, step) in sequences.items()
    }


def fill_states(variant: Variant, indent: int) -> str:
    """Fill the states of a block with those before the first step."""
    filtered = variant.spec.filtered
    lines = [
        "if first_step == 0:",
        "    fill(u, first[0], n)",
        "    fill(current, ZERO, n)" if filtered else "",
        "else:",
        "    copy(u, window(first, lo, n))",
        "    copy(current, window(first, size + lo, n))" if filtered else "",
    ]
    return indented([line for line in lines if line], indent)


def states(variant: Variant) -> dict[str, str]:
    """A column's states: the array that keeps them, and their name within a step."""
    return {"u": "v", "current": "i"} if variant.spec.filtered else {"u": "v"}
