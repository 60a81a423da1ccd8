"""The text of a neuron's fused Triton kernels, made from its three scalar functions.

One program owns BLOCK columns and walks over time with their membranes in registers. The backward
pass first runs its columns forward again, keeping the charged membranes in a scratch ``[T, M]``,
then goes back in time: nothing but the input need be saved. (For T known and small, unrolling the
loops would keep the charged membranes in registers as well and save the scratch's write and read:
8 of the 14 bytes that a bfloat16 column moves at each step.)
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

    ``variant.dtype`` is the dtype of the arithmetic (the kernel takes memory in any), and
    ``variant.kinds`` knows one kind more, "p": a number that lies in memory.
    """
    spec, v = variant.spec, variant
    tap = {"h": "h", "v": "u"}.get(v.tap)
    tap_store = f"tl.store(tap + t * size + m, {tap}, mask=inside)" if tap else ""
    kernel = f"""
@triton.jit
def forward(x, x_step: tl.int64, spikes, first, start: tl.{v.dtype}, last, tap,
            steps: tl.int64, size, {_parameters(v)}
            WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(v)}
    for t in range(steps):
{_at_step(v)}
{_indented(_input(v), 8)}
        h = charge({_arguments("u", "x_t", *spec.charge_names)})
        s = quantize({_arguments("argument(h, threshold)", *spec.quantize_names)})
        u = reset({_arguments("h", "s", *spec.reset_names)})
        tl.store(spikes + t * size + m, s, mask=inside)
        {tap_store}
    if last is not None:
        tl.store(last + m, u, mask=inside)
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
    before_store = "tl.store(before + t * size + m, u, mask=inside)" if v.needs_before else ""
    tap_load = "g_tap_t = tl.load(g_tap + t * g_tap_step + m, mask=inside, other=0.0)"
    through_spike = "" if spec.detach_reset else " + g_u * reset_by_s"
    kernel = f"""
@triton.jit
def backward(g, g_step: tl.int64, g_tap, g_tap_step: tl.int64, x, x_step: tl.int64, first,
             start: tl.{v.dtype}, gx, charged, before, {_names(f"{n}_grad" for n in v.wanted)}
             steps: tl.int64, size, {_parameters(v)}
             WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(v)}
    for t in range(steps):
{_at_step(v)}
        {before_store}
{_indented(_input(v), 8)}
        h = charge({_arguments("u", "x_t", *spec.charge_names)})
        s = quantize({_arguments("argument(h, threshold)", *spec.quantize_names)})
        u = reset({_arguments("h", "s", *spec.reset_names)})
        tl.store(charged + t * size + m, h, mask=inside)
    # What one thread wrote another may read.
    tl.debug_barrier()
    g_u = tl.zeros([BLOCK], {real})
{_indented(sums, 4)}
    for back in range(steps):
        t = steps - 1 - back
{_at_step(v)}
{_indented(_charge_arguments(v), 8)}
        h = tl.load(charged + t * size + m, mask=inside, other=0.0)
        g_t = tl.load(g + t * g_step + m, mask=inside, other=0.0).to({real})
        {tap_load if v.tap else ""}
        z = argument(h, threshold)
        s = quantize({_arguments("z", *spec.quantize_names)})
        charge_by_u, charge_by_x, {_names(f"charge_by_{n}" for n in spec.charge_names)} = (
            charge_partials({_arguments("u", "x_t", *spec.charge_names)}))
        z_by_h, z_by_threshold = argument_partials(h, threshold)
        reset_by_h, reset_by_s, {_names(f"reset_by_{n}" for n in spec.reset_names)} = (
            reset_partials({_arguments("h", "s", *spec.reset_names)}))
        {"g_u += g_tap_t" if v.tap == "v" else ""}
        g_s = g_t{through_spike}
        g_z = g_s * derivative({_arguments("z", *spec.surrogate_names)})
        g_h = g_u * reset_by_h + g_z * z_by_h{" + g_tap_t" if v.tap == "h" else ""}
        g_x = g_h * charge_by_x
        tl.store(gx + t * size + m, g_x{" * input_gain" if spec.normed else ""}, mask=inside)
{_indented(_accumulate(v), 8)}
        g_u = g_h * charge_by_u
{_indented(_flush(v), 4)}
"""
    return _module(v, _functions(v, backward=True), kernel)


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
    for name, kind in zip(variant.spec.names, variant.kinds.lower(), strict=True):
        if kind == "p":
            lines.append(f"{name} = tl.load({name}_ptr).to({real})")
        if kind == "v":
            lines.append(f"{name}_at = {name}_ptr + (m // {name}_inner) % {name}_count")
            lines.append(f"{name} = tl.load({name}_at)")
    return _indented(lines, 4)


def _at_step(variant: Variant) -> str:
    """Load the vectors that vary over time."""
    lines = []
    for name in variant.vectors:
        lines.append(f"if {name}_timed:")
        lines.append(f"    {name} = tl.load({name}_at + t * {name}_count)")
    return _indented(lines, 8)


def _input(variant: Variant) -> list[str]:
    """Load a step's input, as it is and as the neuron takes it."""
    load = f"tl.load(x + t * x_step + m, mask=inside, other=0.0).to(tl.{variant.dtype})"
    if not variant.spec.normed:
        return [f"x_t = {load}"]
    return [f"raw = {load}", "x_t = raw * input_gain + input_shift"]


def _charge_arguments(variant: Variant) -> list[str]:
    """Load u and x of a step again; where no partial of charge needs them, anything will do."""
    if not variant.needs_input:
        return ["u = tl.zeros_like(g_u)", "x_t = u"]
    if not variant.needs_before:
        return ["u = tl.zeros_like(g_u)", *_input(variant)]
    return ["u = tl.load(before + t * size + m, mask=inside, other=0.0)", *_input(variant)]


def _accumulate(variant: Variant) -> list[str]:
    """Add a step's gradient of the coefficients, or store it if they vary over time."""
    lines = []
    for name in variant.wanted:
        gradient = variant.gradient(name).replace("#", "") or "tl.zeros_like(g_u)"
        if name not in variant.vectors:
            lines.append(f"{name}_sum += {gradient}")
            continue
        lines.append(f"if {name}_timed:")
        lines.append(f"    tl.store({name}_grad + t * size + m, {gradient}, mask=inside)")
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
