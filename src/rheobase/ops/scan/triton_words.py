"""The words of `rheobase.ops.lang` in Triton.

What triton.language lacks libdevice has, which does not run in the interpreter; so it stands here.
"""

from __future__ import annotations

import ast

from rheobase.ops.translate import Binding

__all__ = ["BINDING", "HELPERS", "divide_exactly"]

BINDING = Binding(
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

HELPERS = '''
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
def expm1(x):
    """By tanh(x / 2) near 0, where exp(x) - 1 cancels."""
    half = tanh(0.5 * x)
    return tl.where(tl.abs(x) < 1.0, 2.0 * half / (1.0 - half), tl.exp(x) - 1.0)


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


class _ExactDivision(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        text = f"tl.div_rn({ast.unparse(node.left)}, {ast.unparse(node.right)})"
        return ast.parse(text, mode="eval").body


def divide_exactly(text: str) -> str:
    """Divisions rounded to nearest: Triton's of float32 is 2 units off, which can move a spike."""
    return ast.unparse(ast.fix_missing_locations(_ExactDivision().visit(ast.parse(text))))
