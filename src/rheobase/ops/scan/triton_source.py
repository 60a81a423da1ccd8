"""The text of a neuron's fused Triton kernels, made from its three scalar functions.

One program owns BLOCK columns and walks over time with their membranes in registers. The steps of a
segment are unrolled, and the loads of several are on their way at once: they come before the stores
of those steps, since no compiler moves a load past a store that could be to the same place. The
backward pass takes the segments from the last to the first; each it runs forward again, keeping the
charged membranes in registers, then goes back through. So nothing of size T is saved but the input:
where there is more than one segment, the forward pass leaves the membrane before each (but the
first) as a mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from rheobase.ops.scan.kernel_source import Variant
from rheobase.ops.scan.triton_words import BINDING, HELPERS, divide_exactly
from rheobase.ops.translate import translate

__all__ = ["backward_source", "forward_source"]

# So many steps' loads come first.
_AHEAD = 8


def forward_source(variant: Variant) -> str:
    """The module of the forward kernel, with a function ``forward``.

    ``variant.dtype`` is the dtype of the arithmetic (the kernel takes memory in any), and
    ``variant.kinds`` knows one kind more, "p": a number that lies in memory. ``variant.unroll`` is
    the length of a segment (0: the sequence is one) and ``variant.rest`` the steps behind the last.
    """
    v = variant
    tap = {"h": "h#", "v": "u"}.get(v.tap)
    loads = [_load_input("inside")]
    step = [
        *_at_step(v, "@"),
        *_input(v),
        *_filter(v),
        *_forwards(v),
        "if spikes is not None:",
        "    tl.store(spikes + @ * row + m, s, mask=inside)",
        *([f"tl.store(tap + @ * row + m, {tap}, mask=inside)"] if tap else []),
    ]
    kernel = f"""
@triton.jit
def forward(x, x_step: tl.int64, spikes, first, start: tl.{v.dtype}, last, tap, marks,
            steps: tl.int64, size, row: tl.int64, {_parameters(v)}
            WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_indented(_at_once(v, [*_first(v), *_in_segments(v, loads, step)]), 4)}
    if last is not None:
        tl.store(last + m, u, mask=inside)
        {"tl.store(last + row + m, current, mask=inside)" if v.spec.filtered else ""}
"""
    return _module(v, _functions(v, backward=False), kernel)


def backward_source(variant: Variant) -> str:
    """The module of the backward kernel, with a function ``backward``; see `forward_source`.

    Where gradients of coefficients are wanted, a program takes ``turns`` blocks of columns, one
    ``period`` apart, after which vectors repeat themselves, and adds their gradients up. What is
    left is summed outside, in a fixed order: of a number one sum for each program, of a vector one
    for each column of a period. Of a vector that varies over time the gradient comes for every
    column and step.
    """
    spec, v = variant.spec, variant
    real = f"tl.{v.dtype}"
    inside = "inside"
    time = "@"
    if v.unroll and v.rest:
        # Steps of the last segment behind the end: without input and gradient, they change nothing.
        inside, time = "(inside & (@ < steps))", "tl.minimum(@, steps - 1)"
    both = "reset_by_below, " if spec.two_sided else ""
    tap_load = f"g_tap# = tl.load(g_tap + @ * g_tap_step + m, mask={inside}, other=0.0)"
    loads = [
        f"g# = tl.load(g + @ * g_step + m, mask={inside}, other=0.0)",
        *([tap_load] if v.tap else []),
        *([_load_input(inside)] if v.needs_input else []),
    ]
    through_spike = "" if spec.detach_reset else " + g_u * reset_by_s"
    g_x = "g_x * input_gain" if spec.normed else "g_x"
    again = [
        *_at_step(v, time), *_keep_before(v), _load_input(inside), *_input(v), *_filter(v),
        *_forwards(v),
    ]  # fmt: skip
    back = [
        *_at_step(v, time),
        *_charge_arguments(v),
        f"g_t = g#.to({real})",
        *_fire_again(v),
        f"charge_by_u, charge_by_x, {_names(f'charge_by_{n}' for n in spec.charge_names)} = "
        f"charge_partials({_arguments('u', 'x_t', *spec.charge_names)})",
        "z_by_h, z_by_threshold = argument_partials(h#, threshold)",
        f"reset_by_h, reset_by_s, {both}{_names(f'reset_by_{n}' for n in spec.reset_names)} = "
        f"reset_partials({_arguments('h#', v.spikes('s'), *spec.reset_names)})",
        *(["g_u += g_tap#"] if v.tap == "v" else []),
        f"g_s = g_t{through_spike}",
        f"g_z = g_s * derivative({_arguments('z', *spec.surrogate_names)})",
        *(_fired_below(v) if spec.two_sided else []),
        "g_h = g_u * reset_by_h + g_z * z_by_h"
        + (" - g_below * below_by_h" if spec.two_sided else "")
        + (" + g_tap#" if v.tap == "h" else ""),
        "g_x = g_h * charge_by_x" + (" + g_i" if spec.filtered else ""),
        *(["g_i = g_x * current_decay"] if spec.filtered else []),
        f"gx_sum += {g_x}" if v.summed else f"tl.store(gx + @ * row + m, {g_x}, mask={inside})",
        *_accumulate(v, inside),
        "g_u = g_h * charge_by_u",
    ]
    columns = [
        *_first(v),
        *_last_gradient(v),
        *([f"gx_sum = tl.zeros([BLOCK], {real})"] if v.summed else []),
        *_in_segments_backwards(v, again, loads, back),
        *(["tl.store(gx + m, gx_sum, mask=inside)"] if v.summed else []),
        "if g_first is not None:",
        "    tl.store(g_first + m, g_u, mask=inside)",
        *(["    tl.store(g_first + row + m, g_i, mask=inside)"] if spec.filtered else []),
    ]
    kernel = f"""
@triton.jit
def backward(g, g_step: tl.int64, g_tap, g_tap_step: tl.int64, x, x_step: tl.int64, first,
             start: tl.{v.dtype}, zero: tl.{v.dtype}, marks, g_last, g_first, gx,
             {_names(f"{n}_grad" for n in v.wanted)}
             steps: tl.int64, size, row: tl.int64, period, turns, {_parameters(v)}
             WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_indented(_in_turns(v, columns) if v.wanted else _at_once(v, columns), 4)}
"""
    return _module(v, _functions(v, backward=True), kernel)


def _at_once(variant: Variant, lines: list[str]) -> list[str]:
    """The lines for one block of columns m a program."""
    return [
        "program = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)",
        "m = program * BLOCK + tl.arange(0, BLOCK)",
        "inside = m < size",
        *_constant(variant, "m"),
        *lines,
    ]


def _in_turns(variant: Variant, lines: list[str]) -> list[str]:
    """The lines for one block of columns m after another, and what they add up."""
    return [
        "blocks = tl.cdiv(period, BLOCK)",
        "share = tl.program_id(0) // blocks",
        "column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)",
        "if WIDE:",
        "    share = share.to(tl.int64)",
        "    column = column.to(tl.int64)",
        *_constant(variant, "column"),
        *[f"{name}_sum = tl.zeros([BLOCK], tl.{variant.dtype})" for name in variant.wanted],
        "for turn in range(turns):",
        "    before = (share * turns + turn) * period",
        "    m = before + column",
        "    inside = (column < period) & (before < size)",
        *_indented(lines, 4).splitlines(),
        *_flush(variant),
    ]


def _in_segments(variant: Variant, loads: list[str], step: list[str]) -> list[str]:
    """A step's lines from the first step to the last; the states before each segment are marked."""
    v = variant
    if not v.unroll:
        return _ahead(loads, step, "$", range(v.rest))
    mark = [f"tl.store({place}, {name}, mask=inside)" for name, place in _marks(v)]
    number = f"(segment * {v.unroll} + $)"
    lines = [
        f"for segment in range(steps // {v.unroll}):",
        "    if marks is not None:",
        "        if segment > 0:",
        *_indented(mark, 12).splitlines(),
        *_indented(_ahead(loads, step, number, range(v.unroll)), 4).splitlines(),
    ]
    if v.rest:
        lines += [
            f"segment = steps // {v.unroll}",
            "if marks is not None:",
            *_indented(mark, 4).splitlines(),
            *_ahead(loads, step, number, range(v.rest)),
        ]
    return lines


def _in_segments_backwards(
    variant: Variant, again: list[str], loads: list[str], back: list[str]
) -> list[str]:
    """From the last segment to the first: its steps forward once more, then back through them."""
    v = variant
    order = range(v.unroll or v.rest)
    if not v.unroll:
        return [*_unrolled(again, "$", order), *_ahead(loads, back, "$", order[::-1])]
    number = f"(segment * {v.unroll} + $)"
    segment = [
        "segment = segments - 1 - done",
        *(
            f"{name} = tl.load({place}, mask=inside & (segment > 0), other={name}_first)"
            for name, place in _marks(v)
        ),
        *_unrolled(again, number, order),
        *_ahead(loads, back, number, order[::-1]),
    ]
    return [
        *(f"{name}_first = {name}" for name, _ in _marks(v)),
        f"segments = tl.cdiv(steps, {v.unroll})",
        "for done in range(segments):",
        *_indented(segment, 4).splitlines(),
    ]


def _marks(variant: Variant) -> list[tuple[str, str]]:
    """A column's states and where they are kept before a segment."""
    if not variant.spec.filtered:
        return [("u", "marks + (segment - 1) * row + m")]
    return [
        ("u", "marks + (segment - 1) * 2 * row + m"),
        ("current", "marks + ((segment - 1) * 2 + 1) * row + m"),
    ]


def _ahead(loads: list[str], lines: list[str], number: str, steps: range) -> list[str]:
    """`_unrolled`, the loads of several steps before them."""
    groups = [steps[start : start + _AHEAD] for start in range(0, len(steps), _AHEAD)]
    return [
        line
        for group in groups
        for part in (loads, lines)
        for line in _unrolled(part, number, group)
    ]


def _unrolled(lines: list[str], number: str, steps: range) -> list[str]:
    """The lines at every step: ``@`` is its number, ``#`` tells the names of one from another's."""
    text = "\n".join(lines).replace("@", number)
    texts = (text.replace("$", str(k)).replace("#", str(k)) for k in steps)
    return [line for text in texts for line in text.splitlines()]


def _forwards(variant: Variant) -> list[str]:
    """Charge, fire, reset."""
    spec = variant.spec
    return [
        f"h# = charge({_arguments('u', 'x_t', *spec.charge_names)})",
        *_fire(variant),
        f"u = reset({_arguments('h#', variant.spikes('s'), *spec.reset_names)})",
    ]


def _fire(variant: Variant, again: str = "") -> list[str]:
    """How far a membrane is above threshold (and below the lower one), and its spikes.

    ``again`` stands behind the names of the thresholds.
    """
    names = variant.spec.quantize_names
    above = f"z = argument(h#, threshold{again})"
    spikes = f"quantize({_arguments('z', *names)})"
    if not variant.spec.two_sided:
        return [above, f"s = {spikes}"]
    below = f"below = argument(-h#, lower{again})"
    spikes = f"up#, down# = {spikes}, quantize({_arguments('below', *names)})"
    return [above, below, spikes, "s = up# - down#"]


def _fire_again(variant: Variant) -> list[str]:
    """Fire once more on the way back.

    The compiler must not see that it is the same: it would keep what the way there has computed of
    every step, in twice the registers. So 0 is added to the thresholds, which it does not know.
    """
    levels = ["threshold", *(["lower"] if variant.spec.two_sided else [])]
    return [*(f"{level}_again = {level} + zero" for level in levels), *_fire(variant, "_again")]


def _fired_below(variant: Variant) -> list[str]:
    """The way back through the spike of the lower side, as it goes through that of the upper."""
    spec = variant.spec
    through_reset = "" if spec.detach_reset else " + g_u * reset_by_below"
    slope = f"derivative({_arguments('below', *spec.surrogate_names)})"
    return [
        "below_by_h, below_by_lower = argument_partials(-h#, lower)",
        f"g_below = (-g_t{through_reset}) * {slope}",
    ]


def _kept(variant: Variant) -> list[str]:
    """What the way back needs of the states before a step."""
    kept = ["u"] if variant.needs_before else []
    return [*kept, "current"] if variant.needs_current else kept


def _keep_before(variant: Variant) -> list[str]:
    return [f"{name}# = {name}" for name in _kept(variant)]


def _module(variant: Variant, functions: str, kernel: str) -> str:
    lines = [line for line in kernel.splitlines() if line.strip()]
    return f'''"""Triton kernel of {variant.spec.key}, {variant.dtype}; made by rheobase."""
import triton
import triton.language as tl

{HELPERS}

{functions}


{chr(10).join(lines)}
'''


def _functions(variant: Variant, backward: bool) -> str:
    spec = variant.spec
    values = {
        "charge": spec.charge_functions.value,
        "argument": spec.fire_functions.argument,
        "quantize": spec.fire_functions.quantize,
        "reset": spec.kernels_reset.value,
    }
    slopes = {
        "charge_partials": spec.charge_functions.partials,
        "argument_partials": spec.fire_functions.partials,
        "reset_partials": spec.kernels_reset.partials,
        "derivative": spec.surrogate_functions.derivative,
    }
    texts = [translate(f, name, BINDING, "@triton.jit") for name, f in values.items()]
    if variant.dtype == "float32":
        texts = [divide_exactly(text) for text in texts]
    if backward:
        texts += [translate(f, name, BINDING, "@triton.jit") for name, f in slopes.items()]
    return "\n\n\n".join(texts)


def _parameters(variant: Variant) -> str:
    """The coefficients as the kernel's parameters, with a trailing comma."""
    parts = []
    for name, kind in zip(variant.spec.names, variant.kinds.lower(), strict=True):
        parts += {
            "s": [f"{name}: tl.{variant.dtype}"],
            "p": [f"{name}_ptr"],
            "v": [f"{name}_ptr", f"{name}_count", f"{name}_inner", f"{name}_timed: tl.constexpr"],
        }[kind]
    return _names(parts)


def _constant(variant: Variant, column: str) -> list[str]:
    """The coefficients of a program's columns that do not vary over time."""
    lines = []
    for name, kind in zip(variant.spec.names, variant.kinds.lower(), strict=True):
        if kind == "p":
            lines.append(f"{name} = tl.load({name}_ptr).to(tl.{variant.dtype})")
        if kind == "v":
            lines.append(f"{name}_at = {name}_ptr + ({column} // {name}_inner) % {name}_count")
            lines.append(f"{name} = tl.load({name}_at)")
    return lines


def _first(variant: Variant) -> list[str]:
    """The states before the first step."""
    real = f"tl.{variant.dtype}"
    zeros, load = f"tl.zeros([BLOCK], {real})", "tl.load(first + {0}m, mask=inside, other=0.0)"
    current = [f"    current = {zeros}"] if variant.spec.filtered else []
    loaded = [f"    current = {load.format('row + ')}.to({real})"] if current else []
    return [
        "if first is None:",
        f"    u = {zeros} + start",
        *current,
        "else:",
        f"    u = {load.format('')}.to({real})",
        *loaded,
    ]


def _last_gradient(variant: Variant) -> list[str]:
    """The gradient of the states behind the last step."""
    zeros = f"tl.zeros([BLOCK], tl.{variant.dtype})"
    current = variant.spec.filtered
    return [
        "if g_last is None:",
        f"    g_u = {zeros}",
        *([f"    g_i = {zeros}"] if current else []),
        "else:",
        "    g_u = tl.load(g_last + m, mask=inside, other=0.0)",
        *(["    g_i = tl.load(g_last + row + m, mask=inside, other=0.0)"] if current else []),
    ]


def _at_step(variant: Variant, time: str) -> list[str]:
    """Load the vectors that vary over time."""
    lines = []
    for name in variant.vectors:
        lines.append(f"if {name}_timed:")
        lines.append(f"    {name} = tl.load({name}_at + {time} * {name}_count)")
    return lines


def _load_input(inside: str) -> str:
    return f"x# = tl.load(x + @ * x_step + m, mask={inside}, other=0.0)"


def _input(variant: Variant) -> list[str]:
    """A step's input, as it is and as the neuron takes it."""
    value = f"x#.to(tl.{variant.dtype})"
    if not variant.spec.normed:
        return [f"x_t = {value}"]
    return [f"raw = {value}", "x_t = raw * input_gain + input_shift"]


def _filter(variant: Variant) -> list[str]:
    """Charge the synapse, whose current takes the input's place."""
    if not variant.spec.filtered:
        return []
    return ["current = current * current_decay + x_t", "x_t = current"]


def _charge_arguments(variant: Variant) -> list[str]:
    """Get u and x of a step again; where no partial of charge needs them, anything will do."""
    v = variant
    lines = [] if v.needs_before else ["u = tl.zeros_like(g_u)"]
    lines += [f"{name} = {name}#" for name in _kept(v)]
    lines += _input(v) if v.needs_input else ["x_t = u"]
    if v.needs_current:
        lines.append("i = current")
    if v.needs_current and v.needs_input:
        lines.append("x_t = i * current_decay + x_t")
    return lines


def _accumulate(variant: Variant, inside: str) -> list[str]:
    """Add a step's gradient of the coefficients, or store it if they vary over time."""
    lines = []
    for name in variant.wanted:
        gradient = variant.gradient(name).replace("#", "") or "tl.zeros_like(g_u)"
        if name not in variant.vectors:
            lines.append(f"{name}_sum += {gradient}")
            continue
        lines.append(f"if {name}_timed:")
        lines.append(f"    tl.store({name}_grad + @ * row + m, {gradient}, mask={inside})")
        lines.append("else:")
        lines.append(f"    {name}_sum += {gradient}")
    return lines


def _flush(variant: Variant) -> list[str]:
    lines = []
    for name in variant.wanted:
        if name in variant.vectors:
            into = f"{name}_grad + share * period + column"
            lines.append(f"if not {name}_timed:")
            lines.append(f"    tl.store({into}, {name}_sum, mask=column < period)")
        else:
            # Columns that are not inside have gradient 0.
            lines.append(f"tl.store({name}_grad + tl.program_id(0), tl.sum({name}_sum, axis=0))")
    return lines


def _arguments(*parts: str) -> str:
    return ", ".join(parts)


def _names(parts: Iterable[str]) -> str:
    """Names with a comma after each."""
    return "".join(f"{part}, " for part in parts)


def _indented(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)
