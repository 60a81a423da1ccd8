"""The text of a neuron's fused Triton kernels, made from its three scalar functions.

One program owns BLOCK columns and walks over time with their membranes in registers. The backward
pass first runs its columns forward again, keeping the charged membranes, then goes back in time:
nothing but the input need be saved. Few steps are unrolled: all loads can then be on their way at
once, and the charged membranes stay in registers. For many steps they go through a scratch
``[T, M]``, whose write and read are 8 of the 14 bytes that a bfloat16 column moves at each step.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from rheobase.ops.scan.kernel_source import Variant
from rheobase.ops.translate import Binding, translate

__all__ = ["backward_source", "forward_source"]

_BINDING = Binding(
    {
        "abs": "tl.abs({0})",
        "atan": "atan({0})",
        "cos": "tl.cos({0})",
        "erf": "tl.erf({0})",
        "exp": "tl.exp({0})",
        "floor": "tl.floor({0})",
        "indicator": "({0}).to(({1}).dtype)",
        "log": "tl.log({0})",
        # Selects, so that a NaN in the first argument stays one.
        "maximum": "tl.where({0} < {1}, {1}, {0})",
        "minimum": "tl.where({0} > {1}, {1}, {0})",
        "round": "round_half_even({0})",
        "sign": "(({0} > 0.0).to(({0}).dtype) - ({0} < 0.0).to(({0}).dtype))",
        "sin": "tl.sin({0})",
        "tanh": "tanh({0})",
        "where": "tl.where({0}, {1}, {2})",
    }
)

# What triton.language lacks and libdevice has; libdevice does not run in the interpreter.
_HELPERS = '''
@triton.jit
def round_half_even(x):
    below = tl.floor(x)
    over = x - below
    even = 2.0 * tl.floor(0.5 * (x + 0.5))
    return tl.where(over == 0.5, even, tl.where(over > 0.5, below + 1.0, below))


@triton.jit
def tanh(x):
    """Lambert's continued fraction near 0, where the quotient of exponentials cancels."""
    q = x * x
    near = x * (10395.0 + q * (1260.0 + q * 21.0)) / (10395.0 + q * (4725.0 + q * (210.0 + q)))
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(q < 0.25, near, tl.where(x < 0.0, -far, far))


@triton.jit
def atan(x):
    """The angle to (0, pi/4), halved twice by atan(a) = 2 atan(a / (1 + sqrt(1 + a^2))), then
    seven terms of the series."""
    size = tl.abs(x)
    a = tl.where(size > 1.0, 1.0 / tl.maximum(size, 1.0), size)
    a = a / (1.0 + tl.sqrt(1.0 + a * a))
    a = a / (1.0 + tl.sqrt(1.0 + a * a))
    q = a * a
    p = 1.0 / 9.0 - q * (1.0 / 11.0 - q * (1.0 / 13.0))
    p = 1.0 - q * (1.0 / 3.0 - q * (1.0 / 5.0 - q * (1.0 / 7.0 - q * p)))
    angle = 4.0 * a * p
    angle = tl.where(size > 1.0, 1.5707963267948966 - angle, angle)
    return tl.where(x < 0.0, -angle, angle)
'''


def forward_source(variant: Variant) -> str:
    """The module of the forward kernel, with a function ``forward``.

    ``variant.dtype`` is the dtype of the arithmetic (the kernel takes memory in any),
    ``variant.kinds`` knows one kind more, "p": a number that lies in memory, and ``variant.unroll``
    is T, or 1 for a loop over time.
    """
    v = variant
    tap = {"h": "h#", "v": "u"}.get(v.tap)
    step = [
        *_at_step(v),
        *_input(v),
        *_filter(v),
        *_forwards(v),
        "tl.store(spikes + @ * row + m, s, mask=inside)",
        *([f"tl.store(tap + @ * row + m, {tap}, mask=inside)"] if tap else []),
    ]
    kernel = f"""
@triton.jit
def forward(x, x_step: tl.int64, spikes, first, start: tl.{v.dtype}, last, tap,
            steps: tl.int64, size, row: tl.int64, {_parameters(v)}
            WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(v)}
{_over_time(v, step)}
    if last is not None:
        tl.store(last + m, u, mask=inside)
        {"tl.store(last + row + m, current, mask=inside)" if v.spec.filtered else ""}
"""
    return _module(v, _functions(v, backward=False), kernel)


def backward_source(variant: Variant) -> str:
    """The module of the backward kernel, with a function ``backward``; see `forward_source`.

    A number's gradient comes as one sum for each program, a vector's as one value for each column
    (and step, if it varies over time): summed outside, in a fixed order.
    """
    spec, v = variant.spec, variant
    real = f"tl.{v.dtype}"
    sums = [f"{n}_sum = tl.zeros([BLOCK], {real})" for n in v.wanted]
    both = "reset_by_below, " if spec.two_sided else ""
    tap_load = "g_tap_t = tl.load(g_tap + @ * g_tap_step + m, mask=inside, other=0.0)"
    through_spike = "" if spec.detach_reset else " + g_u * reset_by_s"
    again = [
        *_at_step(v), *_keep_before(v), *_input(v), *_filter(v), *_forwards(v), *_keep_charged(v),
    ]  # fmt: skip
    back = [
        *_at_step(v),
        *_charge_arguments(v),
        *_charged_again(v),
        f"g_t = tl.load(g + @ * g_step + m, mask=inside, other=0.0).to({real})",
        *([tap_load] if v.tap else []),
        *_fire(v),
        f"charge_by_u, charge_by_x, {_names(f'charge_by_{n}' for n in spec.charge_names)} = "
        f"charge_partials({_arguments('u', 'x_t', *spec.charge_names)})",
        "z_by_h, z_by_threshold = argument_partials(h#, threshold)",
        f"reset_by_h, reset_by_s, {both}{_names(f'reset_by_{n}' for n in spec.reset_names)} = "
        f"reset_partials({_arguments('h#', v.spikes('s'), *spec.reset_names)})",
        *(["g_u += g_tap_t"] if v.tap == "v" else []),
        f"g_s = g_t{through_spike}",
        f"g_z = g_s * derivative({_arguments('z', *spec.surrogate_names)})",
        *(_fired_below(v) if spec.two_sided else []),
        "g_h = g_u * reset_by_h + g_z * z_by_h"
        + (" - g_below * below_by_h" if spec.two_sided else "")
        + (" + g_tap_t" if v.tap == "h" else ""),
        "g_x = g_h * charge_by_x" + (" + g_i" if spec.filtered else ""),
        *(["g_i = g_x * current_decay"] if spec.filtered else []),
        f"tl.store(gx + @ * row + m, g_x{' * input_gain' if spec.normed else ''}, mask=inside)",
        *_accumulate(v),
        "g_u = g_h * charge_by_u",
    ]
    kernel = f"""
@triton.jit
def backward(g, g_step: tl.int64, g_tap, g_tap_step: tl.int64, x, x_step: tl.int64, first,
             start: tl.{v.dtype}, gx, charged, before, currents,
             {_names(f"{n}_grad" for n in v.wanted)}
             steps: tl.int64, size, row: tl.int64, {_parameters(v)}
             WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(v)}
{_over_time(v, again)}
    # What one thread wrote another may read.
    {"tl.debug_barrier()" if v.unroll == 1 else ""}
    g_u = tl.zeros([BLOCK], {real})
    {"g_i = g_u" if spec.filtered else ""}
{_indented(sums, 4)}
{_over_time(v, back, backwards=True)}
{_indented(_flush(v), 4)}
"""
    return _module(v, _functions(v, backward=True), kernel)


def _over_time(variant: Variant, lines: list[str], backwards: bool = False) -> str:
    """The lines at every step: ``@`` is its number, ``#`` tells the names of one from another's."""
    text = "\n".join(lines)
    if variant.unroll == 1:
        at = "(steps - 1 - k)" if backwards else "k"
        body = text.replace("@", at).replace("#", "").splitlines()
        return "    for k in range(steps):\n" + _indented(body, 8)
    order = range(variant.unroll - 1, -1, -1) if backwards else range(variant.unroll)
    return "\n".join(
        _indented(text.replace("@", str(k)).replace("#", str(k)).splitlines(), 4) for k in order
    )


def _forwards(variant: Variant) -> list[str]:
    """Charge, fire, reset."""
    spec = variant.spec
    return [
        f"h# = charge({_arguments('u', 'x_t', *spec.charge_names)})",
        *_fire(variant),
        f"u = reset({_arguments('h#', variant.spikes('s'), *spec.reset_names)})",
    ]


def _fire(variant: Variant) -> list[str]:
    """How far a membrane is above threshold (and below the lower one), and its spikes."""
    names = variant.spec.quantize_names
    above = "z = argument(h#, threshold)"
    spikes = f"quantize({_arguments('z', *names)})"
    if not variant.spec.two_sided:
        return [above, f"s = {spikes}"]
    below = "below = argument(-h#, lower)"
    spikes = f"up#, down# = {spikes}, quantize({_arguments('below', *names)})"
    return [above, below, spikes, "s = up# - down#"]


def _fired_below(variant: Variant) -> list[str]:
    """The way back through the spike of the lower side, as it goes through that of the upper."""
    spec = variant.spec
    through_reset = "" if spec.detach_reset else " + g_u * reset_by_below"
    slope = f"derivative({_arguments('below', *spec.surrogate_names)})"
    return [
        "below_by_h, below_by_lower = argument_partials(-h#, lower)",
        f"g_below = (-g_t{through_reset}) * {slope}",
    ]


def _kept(variant: Variant) -> dict[str, str]:
    """What the way back needs of the states before a step, and the scratch for it."""
    kept = {"u": "before"} if variant.needs_before else {}
    return kept | ({"current": "currents"} if variant.needs_current else {})


def _keep_before(variant: Variant) -> list[str]:
    kept = _kept(variant).items()
    if variant.unroll > 1:
        return [f"{name}# = {name}" for name, _ in kept]
    return [f"tl.store({array} + @ * row + m, {name}, mask=inside)" for name, array in kept]


def _keep_charged(variant: Variant) -> list[str]:
    return ["tl.store(charged + @ * row + m, h, mask=inside)"] if variant.unroll == 1 else []


def _charged_again(variant: Variant) -> list[str]:
    load = "h = tl.load(charged + @ * row + m, mask=inside, other=0.0)"
    return [load] if variant.unroll == 1 else []


def _module(variant: Variant, functions: str, kernel: str) -> str:
    lines = [line for line in kernel.splitlines() if line.strip()]
    return f'''"""Triton kernel of {variant.spec.key}, {variant.dtype}; made by rheobase."""
import triton
import triton.language as tl

{_HELPERS}

{functions}


{chr(10).join(lines)}
'''


def _functions(variant: Variant, backward: bool) -> str:
    spec = variant.spec
    values = {
        "charge": spec.charge_functions.value,
        "argument": spec.fire_functions.argument,
        "quantize": spec.fire_functions.quantize,
        "reset": spec.reset_functions.value,
    }
    slopes = {
        "charge_partials": spec.charge_functions.partials,
        "argument_partials": spec.fire_functions.partials,
        "reset_partials": spec.reset_functions.partials,
        "derivative": spec.surrogate_functions.derivative,
    }
    texts = [translate(f, name, _BINDING, "@triton.jit") for name, f in values.items()]
    if variant.dtype == "float32":
        texts = [_divide_exactly(text) for text in texts]
    if backward:
        texts += [translate(f, name, _BINDING, "@triton.jit") for name, f in slopes.items()]
    return "\n\n\n".join(texts)


class _ExactDivision(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        text = f"tl.div_rn({ast.unparse(node.left)}, {ast.unparse(node.right)})"
        return ast.parse(text, mode="eval").body


def _divide_exactly(text: str) -> str:
    """Divisions rounded to nearest: Triton's of float32 is 2 units off, which can move a spike."""
    return ast.unparse(ast.fix_missing_locations(_ExactDivision().visit(ast.parse(text))))


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


def _columns(variant: Variant) -> str:
    """Which columns the program owns, their first membranes and their constant coefficients."""
    real = f"tl.{variant.dtype}"
    lines = [
        "program = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)",
        "m = program * BLOCK + tl.arange(0, BLOCK)",
        "inside = m < size",
        "if first is None:",
        f"    u = tl.zeros([BLOCK], {real}) + start",
        "else:",
        f"    u = tl.load(first + m, mask=inside, other=0.0).to({real})",
    ]
    if variant.spec.filtered:
        lines.insert(4, f"    current = tl.zeros([BLOCK], {real})")
        lines.append(f"    current = tl.load(first + row + m, mask=inside, other=0.0).to({real})")
    for name, kind in zip(variant.spec.names, variant.kinds.lower(), strict=True):
        if kind == "p":
            lines.append(f"{name} = tl.load({name}_ptr).to({real})")
        if kind == "v":
            lines.append(f"{name}_at = {name}_ptr + (m // {name}_inner) % {name}_count")
            lines.append(f"{name} = tl.load({name}_at)")
    return _indented(lines, 4)


def _at_step(variant: Variant) -> list[str]:
    """Load the vectors that vary over time."""
    lines = []
    for name in variant.vectors:
        lines.append(f"if {name}_timed:")
        lines.append(f"    {name} = tl.load({name}_at + @ * {name}_count)")
    return lines


def _input(variant: Variant) -> list[str]:
    """Load a step's input, as it is and as the neuron takes it."""
    load = f"tl.load(x + @ * x_step + m, mask=inside, other=0.0).to(tl.{variant.dtype})"
    if not variant.spec.normed:
        return [f"x_t = {load}"]
    return [f"raw = {load}", "x_t = raw * input_gain + input_shift"]


def _filter(variant: Variant) -> list[str]:
    """Charge the synapse, whose current takes the input's place."""
    if not variant.spec.filtered:
        return []
    return ["current = current * current_decay + x_t", "x_t = current"]


def _charge_arguments(variant: Variant) -> list[str]:
    """Get u and x of a step again; where no partial of charge needs them, anything will do."""
    v = variant
    lines = [] if v.needs_before else ["u = tl.zeros_like(g_u)"]
    for name, array in _kept(v).items():
        load = f"tl.load({array} + @ * row + m, mask=inside, other=0.0)"
        lines.append(f"{name} = {load if v.unroll == 1 else name + '#'}")
    lines += _input(v) if v.needs_input else ["x_t = u"]
    if v.needs_current:
        lines.append("i = current")
    if v.needs_current and v.needs_input:
        lines.append("x_t = i * current_decay + x_t")
    return lines


def _accumulate(variant: Variant) -> list[str]:
    """Add a step's gradient of the coefficients, or store it if they vary over time."""
    lines = []
    for name in variant.wanted:
        gradient = variant.gradient(name).replace("#", "") or "tl.zeros_like(g_u)"
        if name not in variant.vectors:
            lines.append(f"{name}_sum += {gradient}")
            continue
        lines.append(f"if {name}_timed:")
        lines.append(f"    tl.store({name}_grad + @ * row + m, {gradient}, mask=inside)")
        lines.append("else:")
        lines.append(f"    {name}_sum += {gradient}")
    return lines


def _flush(variant: Variant) -> list[str]:
    lines = []
    for name in variant.wanted:
        if name in variant.vectors:
            lines.append(f"if not {name}_timed:")
            lines.append(f"    tl.store({name}_grad + m, {name}_sum, mask=inside)")
        else:
            # Columns that are not inside have gradient 0.
            lines.append(f"tl.store({name}_grad + program, tl.sum({name}_sum, axis=0))")
    return lines


def _arguments(*parts: str) -> str:
    return ", ".join(parts)


def _names(parts: Iterable[str]) -> str:
    """Names with a comma after each."""
    return "".join(f"{part}, " for part in parts)


def _indented(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)
