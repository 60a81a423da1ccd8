"""From the little language to a backend's source text.

A function of `rheobase.ops.lang` is read (never run), renamed, and its names and literals are
bound to a backend: ``exp`` becomes the backend's, ``0.5`` becomes a literal of the kernel's dtype
(a bare float would promote a float32 loop to float64). The text is then part of a generated
module, kept in the cache where it can be read and where numba and Triton find it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rheobase._paths import kernel_cache, write_text
from rheobase.ops import lang

__all__ = ["Binding", "load_module", "translate"]


@dataclass(frozen=True)
class Binding:
    """How a backend writes the little language.

    ``calls`` maps a name to a template over its arguments, ``{0}``, ``{1}`` ...; ``literal`` is
    the template of a float.
    """

    calls: dict[str, str]
    literal: str = "{0}"


class _Rewrite(ast.NodeTransformer):
    def __init__(self, binding: Binding, where: str) -> None:
        self.binding = binding
        self.where = where

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id not in self.binding.calls:
            raise ValueError(
                f"{self.where} calls {ast.unparse(node.func)}, which is no name of "
                f"rheobase.ops.lang; known: {', '.join(sorted(self.binding.calls))}"
            )
        arguments = [f"({ast.unparse(a)})" for a in node.args]
        return _expression(self.binding.calls[node.func.id].format(*arguments))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id == "pi":
            return self._literal(lang.pi)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return self._literal(node.value) if isinstance(node.value, float) else node

    def _literal(self, value: float) -> ast.AST:
        return _expression(self.binding.literal.format(repr(value)))


def _expression(text: str) -> ast.expr:
    return ast.parse(f"({text})", mode="eval").body


def translate(function: Callable[..., Any], name: str, binding: Binding, decorator: str) -> str:
    """The source of ``function`` under another name, in a backend's words.

    Raises:
        ValueError: the function uses something outside the little language.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    where = f"{function.__module__}.{function.__qualname__}"
    body = [s for s in definition.body if not _is_docstring(s)]
    for statement in body:
        if not isinstance(statement, ast.Assign | ast.Return):
            raise ValueError(
                f"{where}: only assignments and a return, not {ast.unparse(statement)}"
            )
    arguments = ", ".join(a.arg for a in definition.args.args)
    lines = [
        ast.unparse(ast.fix_missing_locations(_Rewrite(binding, where).visit(s))) for s in body
    ]
    return f"{decorator}\ndef {name}({arguments}):\n" + textwrap.indent("\n".join(lines), "    ")


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def load_module(stem: str, source: str) -> ModuleType:
    """The module of that source, kept in the kernel cache under its own hash.

    What runs is the text given here; a file that differs from it is replaced first.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"{stem}_{digest}"
    path = kernel_cache() / f"{name}.py"
    if not path.exists() or path.read_text() != source:
        write_text(path, source)
    spec = importlib.util.spec_from_file_location(f"rheobase_kernels.{name}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module
