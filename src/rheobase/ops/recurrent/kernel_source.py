"""The text of a recurrent layer's CPU kernels, made from its neuron's three scalar functions.

All T steps of a few samples at once: no call from Python a step, and threads share nothing. The
backward pass computes the membranes again from the saved currents, then goes back in time.

What a neuron keeps lies in one array, a slot of BLOCK features for each quantity: the compiler
then sees that slots never overlap, and makes vectors of the loops. With an array for each it would
have to test every pair, and gives up. Rows of the sequence are said not to overlap.
"""

from __future__ import annotations

from rheobase.ops.scan.kernel_source import Variant, scalar_functions

__all__ = ["backward_parameters", "backward_source", "forward_parameters", "forward_source"]

_NUMBERS = ("current_decay", "adaptation", "adaptation_decay")


def forward_parameters(variant: Variant) -> dict[str, str]:
    """Name and kind of what the forward kernel is called with (see `ops.native.Kernel`)."""
    return _parameters(variant, ("x", "rows", "first", "spikes", "currents", "last"), ())


def backward_parameters(variant: Variant) -> dict[str, str]:
    """The same for the backward kernel."""
    sums = tuple(f"{name}_grad" for name in variant.wanted)
    return _parameters(variant, ("g", "spikes", "currents", "rows", "first", "gx"), sums)


def _parameters(variant: Variant, arrays: tuple[str, ...], sums: tuple[str, ...]) -> dict[str, str]:
    real = f"{variant.compute}*"
    return {
        **dict.fromkeys(arrays, real),
        **dict.fromkeys(sums, "float64*"),
        **dict.fromkeys(("steps", "samples", "features", "chunk"), "int64"),
        **dict.fromkeys(_NUMBERS, variant.compute),
        "coefficients": real,
    }


def forward_source(variant: Variant) -> str:
    """The module of the forward kernel, with a function ``kernel``."""
    v, spec = variant, variant.spec
    return f"""{_header(v, backward=False)}
U, A, SLOTS = 0, BLOCK, 2 * BLOCK


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(forward_parameters(v))}):
    prefer_wide_vectors()
    plane = samples * features
    blocks = (features + BLOCK - 1) // BLOCK
    which, values = np.empty(features, np.int32), np.empty(features, real)
    work = np.empty(chunk * blocks * SLOTS, real)
    for lowest in range(first_chunk * chunk, min(last_chunk * chunk, samples), chunk):
        group = min(chunk, samples - lowest)
        for m in range(group):
            for b in range(blocks):
                n, base = min(BLOCK, features - b * BLOCK), (lowest + m) * features + b * BLOCK
                at = work[(m * blocks + b) * SLOTS :]
                copy(at[U:], first[plane + base : plane + base + n])
                copy(at[A:], first[3 * plane + base : 3 * plane + base + n])
        for t in range(steps):
            for m in range(group):
                base = (lowest + m) * features
                place = t * plane + base
                row_x = x[place : place + features]
                row_s = spikes[place : place + features]
                current = currents[place : place + features]
                if t == 0:
                    before_s = first[base : base + features]
                    before_i = first[2 * plane + base : 2 * plane + base + features]
                else:
                    before_s = spikes[place - plane : place - plane + features]
                    before_i = currents[place - plane : place - plane + features]
                for j in range(features):
                    current[j] = current_decay * before_i[j] + row_x[j]
                add_rows(current, rows, values, which, nonzero(before_s, which, values))
                for b in range(blocks):
                    lo, n = b * BLOCK, min(BLOCK, features - b * BLOCK)
                    step(n, work[(m * blocks + b) * SLOTS :], coefficients[lo * NAMES :],
                         current[lo:], row_s[lo:], {_call()})
        for m in range(group):
            base, end = (lowest + m) * features, (steps - 1) * plane + (lowest + m) * features
            copy(last[base:], spikes[end : end + features])
            copy(last[2 * plane + base :], currents[end : end + features])
            for b in range(blocks):
                n, place = min(BLOCK, features - b * BLOCK), plane + base + b * BLOCK
                at = work[(m * blocks + b) * SLOTS :]
                copy(last[place:], at[U : U + n])
                copy(last[2 * plane + place :], at[A : A + n])


@njit(nogil=True, error_model="numpy")
def step(n, at, co, current, spikes, {_call()}):
    prefer_wide_vectors()
    for j in range(n):
        threshold = {_at(v, "threshold")} + adaptation * at[A + j]
        h = charge(at[U + j], current[j]{_values(v, spec.charge_names)})
        s = quantize(argument(h, threshold){_values(v, spec.quantize_names)})
        at[U + j] = reset(h, s{_values(v, spec.reset_names)})
        at[A + j] = adaptation_decay * at[A + j] + s
        spikes[j] = s
"""


def backward_source(variant: Variant) -> str:
    """The module of the backward kernel, with a function ``kernel``."""
    v, spec = variant, variant.spec
    slots = ["U", "A", "CARRY", "G_A", "G_X", *(f"SUM_{name}" for name in v.wanted)]
    kept = ("H", "THRESHOLD", "BEFORE") if v.needs_before else ("H", "THRESHOLD")
    before = "kept[BEFORE + j]" if v.needs_before else "ZERO"
    places = "\n".join(
        f"{name} = {number} * BLOCK" for names in (slots, kept) for number, name in enumerate(names)
    )
    sums = [f"at[SUM_{n} + j] += {v.gradient(n) or 'ZERO'}" for n in v.wanted]
    flush = [
        f"for j in range(n): {n}_grad[which * features + lo + j] += at[SUM_{n} + j]"
        for n in v.wanted
    ]
    return f"""{_header(v, backward=True)}
{places}
SLOTS = {len(slots)} * BLOCK
KEPT = {len(kept)} * BLOCK
# Samples that go through time together: rows of the weight are then read once for all of them.
GROUP = 16


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(backward_parameters(v))}):
    prefer_wide_vectors()
    plane = samples * features
    blocks = (features + BLOCK - 1) // BLOCK
    work = np.empty(GROUP * blocks * SLOTS, real)
    kept = np.empty(steps * GROUP * blocks * KEPT, real)
    spike_grad = np.empty(GROUP * features, real)
    for which in range(first_chunk, last_chunk):
        for lowest in range(which * chunk, min((which + 1) * chunk, samples), GROUP):
            group = min(GROUP, min((which + 1) * chunk, samples) - lowest)
            work[:] = ZERO
            for m in range(group):
                for b in range(blocks):
                    n, base = min(BLOCK, features - b * BLOCK), (lowest + m) * features + b * BLOCK
                    at = work[(m * blocks + b) * SLOTS :]
                    copy(at[U:], first[plane + base : plane + base + n])
                    copy(at[A:], first[3 * plane + base : 3 * plane + base + n])
            for t in range(steps):
                for m in range(group):
                    for b in range(blocks):
                        lo, n = b * BLOCK, min(BLOCK, features - b * BLOCK)
                        place = t * plane + (lowest + m) * features + lo
                        again(n, work[(m * blocks + b) * SLOTS :],
                              kept[((t * GROUP + m) * blocks + b) * KEPT :],
                              coefficients[lo * NAMES :], currents[place:], spikes[place:],
                              {_call()})
            for t in range(steps - 1, -1, -1):
                spike_grad[:] = ZERO
                if t + 1 < steps:
                    start = (t + 1) * plane + lowest * features
                    add_products(spike_grad, rows, gx[start : start + group * features], group)
                for m in range(group):
                    for b in range(blocks):
                        lo, n = b * BLOCK, min(BLOCK, features - b * BLOCK)
                        place = t * plane + (lowest + m) * features + lo
                        back(n, work[(m * blocks + b) * SLOTS :],
                             kept[((t * GROUP + m) * blocks + b) * KEPT :],
                             coefficients[lo * NAMES :], spike_grad[m * features + lo :],
                             g[place:], spikes[place:], currents[place:], gx[place:], {_call()})
            for m in range(group):
                for b in range(blocks):
                    lo, n = b * BLOCK, min(BLOCK, features - b * BLOCK)
                    at = work[(m * blocks + b) * SLOTS :]
{_lines(flush, 20)}


@njit(nogil=True, error_model="numpy")
def again(n, at, kept, co, current, spikes, {_call()}):
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for j in range(n):
        threshold = {_at(v, "threshold")} + adaptation * at[A + j]
        kept[THRESHOLD + j] = threshold
        {"kept[BEFORE + j] = at[U + j]" if v.needs_before else "pass"}
        h = charge(at[U + j], current[j]{_values(v, spec.charge_names)})
        kept[H + j] = h
        at[U + j] = reset(h, spikes[j]{_values(v, spec.reset_names)})
        at[A + j] = adaptation_decay * at[A + j] + spikes[j]


@njit(nogil=True, error_model="numpy", fastmath={{"contract"}})
def back(n, at, kept, co, spike_grad, g, spikes, currents, gx, {_call()}):
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for j in range(n):
        threshold, h, s = kept[THRESHOLD + j], kept[H + j], spikes[j]
        z = argument(h, threshold)
        charge_by_u, charge_by_x{_partials("charge", spec.charge_names)} = charge_partials(
            {before}, currents[j]{_values(v, spec.charge_names)})
        z_by_h, z_by_threshold = argument_partials(h, threshold)
        reset_by_h, reset_by_s{_partials("reset", spec.reset_names)} = reset_partials(
            h, s{_values(v, spec.reset_names)})
        g_u = at[CARRY + j]
        g_s = spike_grad[j] + g[j] + at[G_A + j]{"" if spec.detach_reset else " + g_u * reset_by_s"}
        g_z = g_s * derivative(z{_values(v, spec.surrogate_names)})
        g_h = g_u * reset_by_h + g_z * z_by_h
        at[CARRY + j] = g_h * charge_by_u
        at[G_A + j] = adaptation_decay * at[G_A + j] + adaptation * ({v.gradient("threshold")})
        at[G_X + j] = g_h * charge_by_x + current_decay * at[G_X + j]
        gx[j] = at[G_X + j]
{_lines(sums, 8)}
"""


def _call() -> str:
    return ", ".join(_NUMBERS)


def _lines(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines or ["pass"])


def _at(variant: Variant, name: str) -> str:
    """A coefficient at feature j of its block."""
    return f"co[{variant.spec.names.index(name)} * BLOCK + j]"


def _values(variant: Variant, names: tuple[str, ...]) -> str:
    """Coefficients as call arguments, a comma before each; the threshold is the raised one."""
    return "".join(f", {n if n == 'threshold' else _at(variant, n)}" for n in names)


def _partials(function: str, names: tuple[str, ...]) -> str:
    return "".join(f", {function}_by_{n}" for n in names)


def _header(variant: Variant, backward: bool) -> str:
    return f'''"""Recurrent CPU kernel of {variant.spec.key}, {variant.dtype}; made by rheobase."""
import math
import numpy as np
from numba import njit
from rheobase.ops.numba_lang import arrays_do_not_overlap, copy, exp32, prefer_wide_vectors
from rheobase.ops.events.nonzero import nonzero
from rheobase.ops.events.rows import add_rows
from rheobase.ops.recurrent.rows import BLOCK, add_products

real = np.{variant.compute}
ONE = real(1.0)
ZERO = real(0.0)
NAMES = {len(variant.spec.names)}

{scalar_functions(variant, backward)}
'''
