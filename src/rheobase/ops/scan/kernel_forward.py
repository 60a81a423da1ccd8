"""The text of a neuron's fused CPU kernel: all T steps of a block of columns after another."""

from __future__ import annotations

from rheobase.ops.scan.kernel_source import (
    Variant,
    buffers,
    each_step,
    fill_states,
    fill_vectors,
    indented,
    module_text,
    scalar_functions,
    states,
    step_rows,
)
from rheobase.ops.scan.kernel_sweep import Sweep

__all__ = ["forward_source"]


def forward_source(variant: Variant) -> str:
    """The module of the forward kernel, with a function ``kernel``."""
    filtered, sweep, v = variant.spec.filtered, _sweep(variant), variant
    kernel = f"""
{sweep.definition}


@njit(nogil=True, error_model="numpy")
def kernel(first_chunk, last_chunk, {", ".join(v.forward_parameters())}):
    {"x_step = size" if v.dense else "pass"}
    u = np.empty(BLOCK, real)
    current = np.empty({"BLOCK" if filtered else "0"}, real)
{buffers(v, 4)}
    begin = first_chunk * chunk
    for lo in range(begin, min(last_chunk * chunk, size), BLOCK):
        n = min(BLOCK, size - lo)
{fill_states(v, 8)}
{fill_vectors(v, 8, time_varying=False)}
        for t in range(0, steps, {v.unroll}):
{fill_vectors(v, 12, time_varying=True)}
            {sweep.call}
        if last.size > 0:
            copy(window(last, lo, n), window(u, 0, n))
            {"copy(window(last, size + lo, n), window(current, 0, n))" if filtered else "pass"}
"""
    return module_text(variant, scalar_functions(variant, backward=False), kernel)


def _sweep(variant: Variant) -> Sweep:
    """A few steps: states before to states after, in place."""
    spec, v = variant.spec, variant
    step = (
        *v.filter_input(),
        f"h = charge(v, x#{v.values(spec.charge_names)})",
        *v.fire("h", "s#"),
        f"v = reset(h, {v.spikes('s#')}{v.values(spec.reset_names)})",
        f"tap# = {v.tap}" if v.tap else "",
    )
    spike = "np.uint8(s#)" if v.as_bytes else v.store("s#")
    stores = ("row_tap#[j] = tap#" if v.tap else "", f"row_s#[j] = {spike}")
    body = (
        indented([f"{name} = {array}[j]" for array, name in states(v).items()], 0),
        each_step(v, 0, *v.read_input("row_x#")),
        each_step(v, 0, *step),
        each_step(v, 0, *stores),
        indented([f"{array}[j] = {name}" for array, name in states(v).items()], 0),
    )
    rows = {"x": ("x", "x_step"), "s": ("spikes", "size")}
    if v.tap:
        rows["tap"] = ("tap", "size")
    given = {array: f"window({array}, 0, n)" for array in states(v)} | step_rows(v, rows)
    return Sweep(v, "sweep", given, "\n".join(body), interleaved=v.interleaved)
