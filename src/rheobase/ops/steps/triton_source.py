"""The text of a step's fused Triton kernels: a program takes BLOCK columns through all steps.

Forward the states are in registers; where there will be a way back, those before every segment of
steps are left as marks. Back, a segment is run forward once more from its mark into a scratch of
one segment's states, then gone back through.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from textwrap import indent

from rheobase.ops.scan.triton_words import HELPERS, divide_exactly
from rheobase.ops.steps.trace import Lines, Program

__all__ = ["SEGMENT", "back_source", "forward_source"]

SEGMENT = 8
"""Steps from one mark to the next."""

_INPUT = (
    "t = segment * SEGMENT + i",
    "x_t = tl.load(x + t * x_step + m, mask=inside, other=0.0)",
)


def forward_source(program: Program, tap: str, real: str) -> str:
    """The module of the forward kernel, with a function ``forward``.

    Args:
        program: the step.
        tap: "h", "v" or "" (no membrane sequence).
        real: dtype of the arithmetic.
    """
    s, h, *after = program.forward.results
    outputs = {"spikes": s} | ({"tap": after[0] if tap == "v" else h} if tap else {})
    step = [
        *_INPUT,
        *_translated(program.forward, real),
        *(
            f"tl.store({name} + t * row + m, {_word(value, real)}, mask=inside)"
            for name, value in outputs.items()
        ),
        *_next("u", after, real),
    ]
    marks = [f"tl.store({_mark(program, i)}, u{i}, mask=inside)" for i in range(program.states)]
    return f"""{_header(real)}
@triton.jit
def forward(x, x_step: tl.int64, spikes, tap, first, last, marks, {_numbers(program, real)}
            steps: tl.int64, size, row: tl.int64, WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(real)}
{_loads("u", "first", program.states)}
    for segment in range(tl.cdiv(steps, SEGMENT)):
        if marks is not None:
{indent(_text(marks), " " * 12)}
        for i in range(tl.minimum(SEGMENT, steps - segment * SEGMENT)):
{indent(_text(step), " " * 12)}
{_stores("u", "last", program.states)}
"""


def back_source(program: Program, tap: str, real: str) -> str:
    """The module of the kernel on the way back, with a function ``backward``; see above.

    ``g_state`` holds the gradient of the last states, and is left with that of the first.
    """
    count = program.states
    gx, *g_before = program.back.results
    kept = [f"kept + (i * {count} + {k}) * row + m" for k in range(count)]
    again = [
        *(f"tl.store({place}, u{k}, mask=inside)" for k, place in enumerate(kept)),
        *_INPUT,
        *_translated(program.forward, real),
        *_next("u", program.forward.results[2:], real),
    ]
    load_tap = "g_tap_t = tl.load(g_tap + t * row + m, mask=inside, other=0.0)"
    back = [
        "i = length - 1 - done",
        *_INPUT,
        "g_s = tl.load(g + t * g_step + m, mask=inside, other=0.0)",
        *([load_tap] if tap else []),
        *(f"u{k} = tl.load({place}, mask=inside, other=0.0)" for k, place in enumerate(kept)),
        *_translated(program.back_from(tap), real),
        f"tl.store(gx + t * row + m, {_word(gx, real)}, mask=inside)",
        *_next("g_u", g_before, real),
    ]
    marks = [f"u{i} = tl.load({_mark(program, i)}, mask=inside, other=0.0)" for i in range(count)]
    return f"""{_header(real)}
@triton.jit
def backward(g, g_step: tl.int64, g_tap, x, x_step: tl.int64, marks, kept, g_state, gx,
             {_numbers(program, real)}
             steps: tl.int64, size, row: tl.int64, WIDE: tl.constexpr, BLOCK: tl.constexpr):
{_columns(real)}
{_loads("g_u", "g_state", count)}
    segments = tl.cdiv(steps, SEGMENT)
    for gone in range(segments):
        segment = segments - 1 - gone
        length = tl.minimum(SEGMENT, steps - segment * SEGMENT)
{indent(_text(marks), " " * 8)}
        for i in range(length):
{indent(_text(again), " " * 12)}
        tl.debug_barrier()
        for done in range(length):
{indent(_text(back), " " * 12)}
        tl.debug_barrier()
{_stores("g_u", "g_state", count)}
"""


def _mark(program: Program, state: int) -> str:
    return f"marks + (segment * {program.states} + {state}) * row + m"


def _numbers(program: Program, real: str) -> str:
    """The program's numbers as parameters, with a comma after each."""
    return "".join(f"c{i}: tl.{real}, " for i in range(len(program.numbers)))


def _columns(real: str) -> str:
    lines = [
        "program = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)",
        "m = program * BLOCK + tl.arange(0, BLOCK)",
        "inside = m < size",
        f"zeros = tl.zeros([BLOCK], tl.{real})",
    ]
    return indent(_text(lines), "    ")


def _loads(name: str, memory: str, count: int) -> str:
    lines = [
        f"{name}{i} = tl.load({memory} + {i} * row + m, mask=inside, other=0.0)"
        for i in range(count)
    ]
    return indent(_text(lines), "    ")


def _stores(name: str, memory: str, count: int) -> str:
    lines = [f"tl.store({memory} + {i} * row + m, {name}{i}, mask=inside)" for i in range(count)]
    return indent(_text(lines), "    ")


def _next(name: str, values: Sequence[str], real: str) -> list[str]:
    """Put the values in place of those before, all at once, as blocks of one dtype."""
    count = range(len(values))
    moved = [f"{name}{i} = {name}{i}_next" for i in count]
    return [*(f"{name}{i}_next = zeros + {_word(values[i], real)}" for i in count), *moved]


def _translated(lines: Lines, real: str) -> list[str]:
    return [_word(line, real) for line in lines.body]


def _text(lines: list[str]) -> str:
    return "\n".join(lines)


def _word(line: str, real: str) -> str:
    """A line of the CPU kernel's in Triton's words."""
    text = ast.unparse(ast.fix_missing_locations(_Words(real).visit(ast.parse(line))))
    return divide_exactly(text) if real == "float32" else text


_CALLS = {
    "abs": "tl.abs", "exp": "tl.exp", "expm1": "expm1", "math.log": "tl.log",
    "math.sin": "tl.sin", "math.cos": "tl.cos", "math.tanh": "tanh", "math.atan": "atan",
    "math.erf": "tl.erf", "np.floor": "tl.floor", "np.rint": "round_half_even",
}  # fmt: skip


class _Words(ast.NodeTransformer):
    """Choices, numbers and functions as Triton has them; roots rounded to nearest."""

    def __init__(self, real: str) -> None:
        self.single = real == "float32"

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return _call("tl.where", node.test, _as_block(node.body), _as_block(node.orelse))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        operator = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        left, right = node.values
        return ast.BinOp(left, operator, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not):
            return ast.Compare(node.operand, [ast.Eq()], [ast.Constant(0)])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name == "math.sqrt":
            return _call("tl.sqrt_rn" if self.single else "tl.sqrt", *node.args)
        return _call(_CALLS[name], *node.args)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return ast.Name(f"c{ast.unparse(node.slice)}", ast.Load())

    def visit_Name(self, node: ast.Name) -> ast.AST:
        number = {"ZERO": 0.0, "ONE": 1.0}.get(node.id)
        if number is not None:
            return ast.Constant(number)
        # Kernels have these names for memory.
        return ast.Name(f"{node.id}_t", node.ctx) if node.id in ("x", "g_tap") else node


def _as_block(value: ast.expr) -> ast.expr:
    """A number as a block of the arithmetic's dtype: a choice between numbers is of float32."""
    if isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id[0] == "c"):
        return ast.BinOp(ast.Name("zeros", ast.Load()), ast.Add(), value)
    return value


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.parse(name, mode="eval").body, list(arguments), [])


def _header(real: str) -> str:
    return f'''"""Triton kernel of a neuron's step, {real}; made by rheobase."""
import triton
import triton.language as tl

SEGMENT: tl.constexpr = tl.constexpr({SEGMENT})
{HELPERS}
'''
