"""The text of the backward kernel's way forward: what the way back takes from it, column by column.

Most neurons keep the states before every sweep, from which the sweep back goes forward once more in
registers. Where the charge takes long (`Charge.long`), that would compute it twice: there every
step keeps its charged membrane and the charge's slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

from rheobase.ops.scan.kernel_source import Variant, each_step, indented, states, step_rows
from rheobase.ops.scan.kernel_sweep import Sweep

__all__ = ["Again", "forward_again"]


_INPUT = {"x": ("x", "x_step")}


@dataclass(frozen=True)
class Again:
    """Going forward again, and what the way back finds of it.

    ``sweep``: the function. ``steps``: how many it goes through. ``rooms``: the arrays that it
    fills, and of how many rows each is. ``found``: what the sweep back is given of them.
    ``before``: its lines before any step. ``recall``: its lines for each step, which find the
    charged membrane and whether it fired. ``slopes``: its lines for each step, going back, which
    find the charge's partials.
    """

    sweep: Sweep
    steps: str
    rooms: dict[str, str]
    found: dict[str, str]
    before: list[str]
    recall: tuple[str, ...]
    slopes: tuple[str, ...]


def forward_again(variant: Variant) -> Again:
    """As the forward kernel has gone."""
    return _with_slopes(variant) if variant.spec.charge_functions.long else _with_states(variant)


def _with_states(variant: Variant) -> Again:
    """Keep the states before each sweep; the last sweep's end is not asked for."""
    v = variant
    load = [f"{name} = {array}[j]" for array, name in states(v).items()]
    body = (
        indented(load, 0),
        each_step(v, 0, *v.read_input("row_x#")),
        each_step(v, 0, *_step(v)),
        indented([f"next_{array}[j] = {name}" for array, name in states(v).items()], 0),
    )
    before = {array: f"window({array}, row, n)" for array in states(v)}
    after = {f"next_{array}": f"window({array}, row + BLOCK, n)" for array in states(v)}
    return Again(
        Sweep(v, "sweep_again", before | after | step_rows(v, _INPUT), "\n".join(body)),
        steps=f"steps - {v.unroll}",
        rooms=dict.fromkeys(states(v), f"steps // {v.unroll}"),
        found=before,
        before=load,
        recall=_step(v),
        slopes=(_charge_slopes(v, "u#", "x#"),),
    )


def _with_slopes(variant: Variant) -> Again:
    """Keep of each step what the way back needs; the states go on in place."""
    v, kept = variant, _kept(variant)
    slopes = [name for name in kept if name.startswith("charge_by")]
    taken = (f"{name}# = {name}" for name in slopes)
    body = (
        indented([f"{name} = {array}[j]" for array, name in states(v).items()], 0),
        each_step(v, 0, *v.read_input("row_x#")),
        each_step(v, 0, *_step(v), _charge_slopes(v, "u#", "x#"), *taken),
        each_step(v, 0, *(f"kept_{name}#[j] = {value}" for name, value in kept.items())),
        indented([f"{array}[j] = {name}" for array, name in states(v).items()], 0),
    )
    here = {array: f"window({array}, 0, n)" for array in states(v)}
    found = {
        f"kept_{name}{k}": f"window(kept_{name}, (t + {k}) * BLOCK, n)"
        for k in range(v.unroll)
        for name in kept
    }
    return Again(
        Sweep(
            v,
            "sweep_again",
            here | found | step_rows(v, _INPUT),
            "\n".join(body),
            interleaved=v.interleaved,
        ),
        steps="steps",
        rooms=dict.fromkeys(states(v), "1") | {f"kept_{name}": "steps" for name in kept},
        found=found,
        before=[],
        recall=(
            *(f"{kept[name]} = kept_{name}#[j]" for name in kept if name not in slopes),
            *variant.fire("h#", "s#"),
        ),
        slopes=(
            # What is not kept is the same for any arguments, or not wanted.
            _charge_slopes(variant, "ZERO", "ZERO"),
            *(f"{name} = kept_{name}#[j]" for name in slopes),
        ),
    )


def _kept(variant: Variant) -> dict[str, str]:
    """What `_with_slopes` keeps of a step, and its name there."""
    spec = variant.spec
    slopes = ["charge_by_u"]
    if not spec.charge_functions.linear_in_x:
        slopes.append("charge_by_x")
    slopes += [f"charge_by_{name}" for name in spec.charge_names if name in variant.wanted]
    current = {"i": "i#"} if spec.filtered else {}
    return {"h": "h#", **current, **{name: f"{name}#" for name in slopes}}


def _step(variant: Variant) -> tuple[str, ...]:
    """One column's step forward, as the forward kernel has taken it."""
    spec, v = variant.spec, variant
    return (
        *v.filter_input(),
        "u# = v",
        f"h# = charge(v, x#{v.values(spec.charge_names)})",
        *v.fire("h#", "s#"),
        f"v = reset(h#, {v.spikes('s#')}{v.values(spec.reset_names)})",
    )


def _charge_slopes(variant: Variant, u: str, x: str) -> str:
    """A line that takes all partials of the charge."""
    names = variant.spec.charge_names
    by_names = "".join(f", charge_by_{n}" for n in names)
    return f"charge_by_u, charge_by_x{by_names} = charge_partials({u}, {x}{variant.values(names)})"
