"""The text of a neuron's fused CPU kernel for the way back; that forward is in `kernel_forward`.

A block of columns first runs forward again (see `kernel_again`), then goes back in time: nothing
but the input need be saved.
"""

from __future__ import annotations

from rheobase.ops.scan.kernel_again import Again, forward_again
from rheobase.ops.scan.kernel_source import (
    Variant,
    alike,
    buffers,
    each_step,
    fill_states,
    fill_vectors,
    indented,
    module_text,
    scalar_functions,
    step_rows,
)
from rheobase.ops.scan.kernel_sweep import Sweep

__all__ = ["backward_source"]


def backward_source(variant: Variant) -> str:
    """The module of the backward kernel, with a function ``kernel``."""
    spec, v = variant.spec, variant
    again = forward_again(v)
    back = _sweep_back(v, again)
    kernel = f"""
{again.sweep.definition}


{back.definition}


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(v.backward_parameters())}):
    {_strides(v)}
{indented([f"{a} = np.empty({rows} * BLOCK, real)" for a, rows in again.rooms.items()], 4)}
    g_carry = np.empty(BLOCK, real)
    g_current = np.empty({"BLOCK" if spec.filtered else "0"}, real)
    gx_sum = np.empty({"BLOCK" if v.summed else "0"}, real)
{buffers(v, 4)}
{indented([f"{n}_sum = np.empty({v.room(n)}, real)" for n in _buffered(v)], 4)}
    begin = first_chunk * chunk
    for lo in range(begin, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
        which = lo // chunk
        opens = lo == which * chunk
        closes = lo + BLOCK >= min((which + 1) * chunk, size)
{fill_states(v, 8)}
        fill(g_carry, ZERO, n)
        {"fill(g_current, ZERO, n)" if spec.filtered else "pass"}
        {"fill(gx_sum, ZERO, n)" if v.summed else "pass"}
{fill_vectors(v, 8, time_varying=False)}
{indented(_clear(v), 8)}
        for t in range(0, {again.steps}, {v.unroll}):
            row = t // {v.unroll} * BLOCK
{fill_vectors(v, 12, time_varying=True)}
            {again.sweep.call}
        for t in range(steps - {v.unroll}, -1, -{v.unroll}):
            row = t // {v.unroll} * BLOCK
{fill_vectors(v, 12, time_varying=True)}
            {back.call}
{_flush(v, 12, time_varying=True)}
{_flush(v, 8, time_varying=False)}
{indented(_store_sum(v), 8)}
"""
    return module_text(variant, scalar_functions(variant, backward=True), kernel)


def _sweep_back(variant: Variant, again: Again) -> Sweep:
    """Back in time, from the gradients after these steps to those before them."""
    v = variant
    carried = {"g_carry": "carry"}
    if v.spec.filtered:
        carried["g_current"] = "i_carry"
    loads = (
        *v.read_input("row_x#"),
        f"g# = {v.load('row_g#[j]')}",
        "gt# = row_gt#[j]" if v.tap else "",
    )
    body = (
        indented([*again.before, *(f"{name} = {array}[j]" for array, name in carried.items())], 0),
        each_step(v, 0, *loads),
        each_step(v, 0, *again.recall),
        each_step(v, 0, *_step_back(v, again), back=True),
        each_step(v, 0, "gx_sum[j] += gx#" if v.summed else f"row_gx#[j] = {v.store('gx#')}"),
        indented([f"{array}[j] = {name}" for array, name in carried.items()], 0),
    )
    sequences = {"x": ("x", "x_step"), "g": ("g", "g_step")}
    if v.tap:
        sequences["gt"] = ("g_tap", "size")
    given = again.found | {name: name for name in carried}
    given |= {"gx_sum": "gx_sum"} if v.summed else step_rows(v, {"gx": ("gx", "size")})
    given |= step_rows(v, sequences)
    # The gradients' own arithmetic may fuse multiply and add, and sum up in any order.
    orders = '"contract", "reassoc"' if v.stretched else '"contract"'
    decorator = f'@njit(nogil=True, error_model="numpy", fastmath={{{orders}}})'
    return Sweep(v, "sweep_back", given, "\n".join(body), tuple(v.wanted), decorator)


def _strides(variant: Variant) -> str:
    """What the compiler may know of the distances between steps."""
    if not variant.dense:
        return "pass"
    return "x_step, g_step = 0, size" if variant.summed else "x_step = g_step = size"


def _step_back(variant: Variant, again: Again) -> tuple[str, ...]:
    """One column's step back in time: from the gradients after it to those before it."""
    spec, v = variant.spec, variant
    both = ", reset_by_below" if spec.two_sided else ""
    names = "".join(f", reset_by_{name}" for name in spec.reset_names)
    return (
        *again.slopes,
        f"z_by_h, z_by_threshold = argument_partials(h#{v.values(('threshold',))})",
        f"reset_by_h, reset_by_s{both}{names} = "
        f"reset_partials(h#, {v.spikes('s#')}{v.values(spec.reset_names)})",
        "g_u = carry" + (" + gt#" if v.tap == "v" else ""),
        "g_s = g#" + ("" if spec.detach_reset else " + g_u * reset_by_s"),
        f"g_z = g_s * derivative(z#{v.values(spec.surrogate_names)})",
        *(_fired_below(v) if spec.two_sided else ()),
        "g_h = g_u * reset_by_h + g_z * z_by_h"
        + (" - g_below * below_by_h" if spec.two_sided else "")
        + (" + gt#" if v.tap == "h" else ""),
        "g_x = g_h * charge_by_x" + (" + i_carry" if spec.filtered else ""),
        f"i_carry = g_x * {v.at('current_decay')}" if spec.filtered else "",
        f"gx# = g_x * {v.at('input_gain')}" if spec.normed else "gx# = g_x",
        "carry = g_h * charge_by_u",
        *(f"{_sum(v, n)} {v.gradient(n) or 'ZERO'}" for n in v.wanted),
    )


def _fired_below(variant: Variant) -> tuple[str, ...]:
    """The way back through the spike of the lower side, as it goes through that of the upper."""
    spec, v = variant.spec, variant
    through_reset = "" if spec.detach_reset else " + g_u * reset_by_below"
    return (
        f"below_by_h, below_by_lower = argument_partials(-h#{v.values(('lower',))})",
        f"g_below = (-g#{through_reset}) * derivative(below#{v.values(spec.surrogate_names)})",
    )


def _sum(variant: Variant, name: str) -> str:
    """The beginning of a line that takes in a step's gradient of a coefficient."""
    once = name in variant.timed and not variant.stretched
    return f"{variant.total(name)} {'=' if once else '+='}"


def _buffered(variant: Variant) -> list[str]:
    """Names of the coefficients whose gradient is summed up column by column."""
    return [] if variant.stretched else variant.wanted


def _clear(variant: Variant) -> list[str]:
    """Begin a block's sums anew, or a chunk's where they run on from block to block."""
    lines = []
    for name in _buffered(variant):
        test = f"opens or not {alike(name)}" if name in variant.vectors else "opens"
        if name not in variant.timed:
            lines.append(f"if {test}: fill({name}_sum, ZERO, n)")
    return lines


def _flush(variant: Variant, indent: int, time_varying: bool) -> str:
    """Move sums into the chunk's row of the gradient: a sweep's, or a block's or chunk's."""
    lines = []
    # What has run on is as long as the chunk's first block.
    whole = "min(BLOCK, size - which * chunk)"
    for name in _buffered(variant):
        row = "which * sums_step"
        start = f"scatter({name}_grad, {name}_sum, {row}"
        place = f"{name}_count, {name}_inner, lo"
        if name in variant.timed:
            lines += [
                f"scatter({name}_grad, window({name}_sum, {k} * BLOCK, n), "
                f"{row} + (t + {k}) * {name}_step, {place}, n)"
                for k in range(variant.unroll)
                if time_varying
            ]
        elif time_varying:
            continue
        elif name not in variant.vectors:
            lines.append(f"if closes: {start}, 1, BLOCK, 0, {whole})")
        else:
            lines.append(f"if {alike(name)}:")
            lines.append(f"    if closes: {start}, {place}, {whole})")
            lines.append(f"else: {start}, {place}, n)")
    return indented(lines, indent)


def _store_sum(variant: Variant) -> list[str]:
    """Write the input's gradient that was summed over time."""
    if not variant.summed:
        return []
    return [
        "row_gx = window(gx, lo, n)",
        "for j in range(n):",
        f"    row_gx[j] = {variant.store('gx_sum[j]')}",
    ]
