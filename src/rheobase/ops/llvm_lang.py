"""Loops written in LLVM's own form: where numba's would keep sums in memory, not in registers."""

# llvmlite has no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from typing import Any

from llvmlite import binding, ir

__all__ = ["BYTES", "WORD", "address", "everywhere", "loop", "number", "pointer"]

BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32
"""Of a register of this processor."""

WORD = ir.IntType(64)
"""Of addresses and counts."""


class loop:
    """A loop that is run at least once; ``with loop(builder, turns, values) as (it, values):``.

    Args:
        builder: llvmlite's, which stands behind the loop at last.
        turns: how many, a `WORD`.
        values: what goes from turn to turn; each turn says what comes next (`go_on`). Afterwards
            they are in ``it.values``.
    """

    def __init__(self, builder: Any, turns: Any, values: list[Any]) -> None:
        self.builder, self.turns, self.values = builder, turns, values

    def __enter__(self) -> tuple[loop, list[Any]]:
        before, self.block = self.builder.block, self.builder.append_basic_block("turn")
        self.builder.branch(self.block)
        self.builder.position_at_end(self.block)
        self.kept = []
        for value in (number(0), *self.values):
            phi = self.builder.phi(value.type)
            phi.add_incoming(value, before)
            self.kept.append(phi)
        return self, self.kept[1:]

    def go_on(self, values: list[Any]) -> None:
        """The values for the next turn, and at last for what follows the loop."""
        self.values = values

    def __exit__(self, *problem: object) -> None:
        turn = self.builder.add(self.kept[0], number(1))
        for phi, value in zip(self.kept, (turn, *self.values), strict=True):
            phi.add_incoming(value, self.builder.block)
        more = self.builder.icmp_signed("<", turn, self.turns)
        behind = self.builder.append_basic_block("behind")
        self.builder.cbranch(more, self.block, behind)
        self.builder.position_at_end(behind)


def number(value: int) -> Any:
    """A constant `WORD`."""
    return ir.Constant(WORD, value)


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    """The address of a value of this kind."""
    return builder.inttoptr(address, kind.as_pointer())


def address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Where the element at ``index`` of an array of numba's ``kind`` lies, a `WORD`."""
    base = builder.ptrtoint(context.make_array(kind)(context, builder, array).data, WORD)
    return builder.add(base, builder.mul(index, number(kind.dtype.bitwidth // 8)))


def everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of this kind with one value in all lanes."""
    whatever, lane = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(whatever, value, ir.Constant(lane, 0))
    zeros = ir.Constant(ir.VectorType(lane, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, whatever, zeros)
