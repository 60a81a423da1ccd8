"""The text of a sweep: a loop over a block's columns that takes a few steps, as a function.

Coefficients that are vectors come in one of two ways. Where each is alike over long stretches of
columns (an image's pixels of one channel), the loop is one over stretches, in which coefficients
are numbers and the sums of their gradients stay in registers. Else each column has its own, from
buffers that the kernel fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent

from rheobase.ops.scan.kernel_source import Variant

__all__ = ["Sweep"]

# How a sweep is compiled whose arithmetic decides a spike.
_EXACT = '@njit(nogil=True, error_model="numpy")'


@dataclass(frozen=True)
class Sweep:
    """A loop over a block's columns as a function of its own.

    Its arrays are arguments, of which the compiler may be told that they do not overlap. Otherwise
    it would have to test every pair of them, and gives up making vectors where they are many.

    ``arguments``: its name for each array, and what the kernel calls it with. ``body``: what is
    done for column j, with coefficients as `Variant.at` writes them. ``sums``: the coefficients
    whose gradient it sums up, in variables as `Variant.total` names them. ``decorator``: how it is
    compiled. ``interleaved``: how many vectors of columns at a time.
    """

    variant: Variant
    name: str
    arguments: dict[str, str]
    body: str
    sums: tuple[str, ...] = ()
    decorator: str = _EXACT
    interleaved: int = 1

    @property
    def definition(self) -> str:
        """The function's text."""
        loop = self._by_stretches() if self.variant.stretched else self._by_columns()
        return f"""{self.decorator}
def {self.name}(n, {", ".join(self._given)}):
    arrays_do_not_overlap()
    prefer_wide_vectors()
{indent(loop, "    ")}"""

    @property
    def call(self) -> str:
        """The kernel's call."""
        return f"{self.name}(n, {', '.join(self._given.values())})"

    @property
    def _given(self) -> dict[str, str]:
        """Its name for each argument, and what the kernel calls it with."""
        v = self.variant
        given = dict(self.arguments)
        for name in v.spec.names:
            if name not in v.vectors:
                given[name] = name
            elif v.stretched:
                given[f"{name}_values"] = name
                given |= {f"{name}_{part}": f"{name}_{part}" for part in ("count", "inner", "step")}
            else:
                given[f"{name}_at"] = f"{name}_at"
        sums = "grad" if v.stretched else "sum"
        given |= {f"{name}_{sums}": f"{name}_{sums}" for name in self.sums}
        if v.stretched and v.vectors:
            given |= {"lo": "lo", "t": "t"}
        if v.stretched and self.sums:
            given["base"] = "which * sums_step"
        return given

    def _by_columns(self) -> str:
        untimed = [name for name in self.sums if name not in self.variant.timed]
        before = [f"{name}_total = {name}_sum[j]" for name in untimed]
        after = [f"{name}_sum[j] = {name}_total" for name in untimed]
        return self._columns("for j in range(n):", [*before, self.body, *after])

    def _columns(self, head: str, parts: list[str]) -> str:
        """The loop over columns."""
        at_a_time = f"\ninterleave({self.interleaved})" if self.interleaved > 1 else ""
        return _loop(head, parts) + at_a_time

    def _by_stretches(self) -> str:
        v = self.variant
        # Unsigned places: the compiler need not ask whether they count from the end.
        place = "j = np.uint64(start) + np.uint64(column)"
        body = self._columns("for column in range(end - start):", [place, self.body])
        values = [
            f"{v.at(name, k)} = {name}_values[{self._place(name, k)}]"
            for name in v.vectors
            for k in self._turns(name)
        ]
        sums = [(name, k) for name in self.sums for k in self._turns(name)]
        zeros = [f"{v.total(*one)} = ZERO" for one in sums]
        flush = [f"{n}_grad[base + {self._place(n, k)}] += {v.total(n, k)}" for n, k in sums]
        stretch = [*values, *zeros, body, *flush]
        if not v.vectors:
            return "\n".join(["start, end = 0, n", *stretch])
        first, ends, on = map("\n".join, zip(*map(_walk, v.vectors), strict=True))
        loop = _loop("while start < n:", ["end = n", ends, *stretch, on, "start = end"])
        return "\n".join([first, "start = 0", loop])

    def _turns(self, name: str) -> range:
        return range(self.variant.unroll if name in self.variant.timed else 1)

    def _place(self, name: str, turn: int) -> str:
        """Where a coefficient's value or gradient lies."""
        if name not in self.variant.vectors:
            return "0"
        step = f"(t + {turn}) * {name}_step + " if name in self.variant.timed else ""
        return f"{step}{name}_place"


def _walk(name: str) -> tuple[str, str, str]:
    """Lines that find a vector's first stretch, its end, and the stretch behind."""
    left, at, inner, count = (f"{name}_{part}" for part in ("left", "place", "inner", "count"))
    first = f"{left}, {at} = {inner} - lo % {inner}, lo // {inner} % {count}"
    end = f"end = min(end, start + {left})"
    step = [f"{left} = {inner}", f"{at} = {at} + 1 if {at} + 1 < {count} else 0"]
    return first, end, f"{left} -= end - start\n" + _loop(f"if {left} == 0:", step)


def _loop(head: str, parts: list[str]) -> str:
    return head + "\n" + indent("\n".join(parts), "    ")
