"""The recurrent scan in PyTorch with its gradient written down: no graph of T steps is kept.

What runs where there is no kernel (GPUs). Backward, the way through time takes one product with
the weight a step; the weight's own gradient is left for one product over all steps (`op`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.ops.recurrent.cell import Cell

__all__ = ["backward", "forward"]

Value = float | Tensor


def forward(
    x: Tensor, weight: Tensor, state: Tensor, cell: Cell, values: Sequence[Value]
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and total currents ``[T, N, F]`` and the last state ``[4, N, F]``.

    ``values`` are in the order of ``cell.spec.names``, none of them varying over time.
    """
    spec = cell.spec
    at = dict(zip(spec.names, values, strict=True))
    s, u, current, adapted = state.unbind(0)
    spikes, currents = torch.empty_like(x), torch.empty_like(x)
    for t in range(x.shape[0]):
        current = torch.add(cell.current_decay * current + x[t], F.linear(s, weight))
        h, z, now = _charged(cell, at, u, current, adapted)
        s = spec.fire_functions.quantize(z, *(now[n] for n in spec.quantize_names))
        u = spec.reset_functions.value(h, s, *(now[n] for n in spec.reset_names))
        adapted = cell.adaptation_decay * adapted + s
        spikes[t], currents[t] = s, current
    return spikes, currents, torch.stack([s, u, current, adapted])


def backward(
    g: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    state: Tensor,
    cell: Cell,
    values: Sequence[Value],
    wanted: Sequence[int],
) -> list[Tensor]:
    """The gradient of the currents ``[T, N, F]``, and of the ``wanted`` coefficients."""
    spec = cell.spec
    at = dict(zip(spec.names, values, strict=True))
    names = [spec.names[i] for i in wanted]
    gx = torch.zeros_like(currents)
    sums = {name: torch.zeros_like(currents[0]) for name in names}
    g_u, g_a, g_i = (torch.zeros_like(currents[0]) for _ in range(3))
    before = list(_states(spikes, currents, state, cell, at))
    for t in range(len(before) - 1, -1, -1):
        u, adapted = before[t]
        h, z, now = _charged(cell, at, u, currents[t], adapted)
        s = spikes[t]
        by_charge = spec.charge_functions.partials(
            u, currents[t], *(now[n] for n in spec.charge_names)
        )
        z_by_h, z_by_threshold = spec.fire_functions.partials(h, now["threshold"])
        by_reset = spec.reset_functions.partials(h, s, *(now[n] for n in spec.reset_names))
        g_s = g[t] + g_a + (g_i @ weight if t + 1 < len(before) else 0.0)
        if not spec.detach_reset:
            g_s = g_s + g_u * by_reset[1]
        slope = spec.surrogate_functions.derivative(z, *(now[n] for n in spec.surrogate_names))
        g_z = g_s * slope
        g_h = g_u * by_reset[0] + g_z * z_by_h
        parts = {n: g_h * p for n, p in zip(spec.charge_names, by_charge[2:], strict=True)}
        for name, partial in zip(spec.reset_names, by_reset[2:], strict=True):
            parts[name] = parts.get(name, 0.0) + g_u * partial
        parts["threshold"] = parts.get("threshold", 0.0) + g_z * z_by_threshold
        for name in names:
            sums[name] += parts.get(name, 0.0)
        g_u = g_h * by_charge[0]
        g_a = cell.adaptation_decay * g_a + cell.adaptation * parts["threshold"]
        g_i = g_h * by_charge[1] + cell.current_decay * g_i
        gx[t] = g_i
    return [gx, *(_like(sums[n], at[n]) for n in names)]


def _charged(
    cell: Cell, at: dict[str, Value], u: Tensor, current: Tensor, adapted: Tensor
) -> tuple[Tensor, Tensor, dict[str, Value]]:
    """The charged membrane, how far it is above threshold, and the coefficients of the step."""
    spec = cell.spec
    now = {**at, "threshold": at["threshold"] + cell.adaptation * adapted}
    h = spec.charge_functions.value(u, current, *(now[n] for n in spec.charge_names))
    return h, spec.fire_functions.argument(h, now["threshold"]), now


def _states(
    spikes: Tensor, currents: Tensor, state: Tensor, cell: Cell, at: dict[str, Value]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Membrane and adaptation before every step, computed again from currents and spikes."""
    u, adapted = state[1], state[3]
    for current, s in zip(currents, spikes, strict=True):
        yield u, adapted
        h, _, now = _charged(cell, at, u, current, adapted)
        u = cell.spec.reset_functions.value(h, s, *(now[n] for n in cell.spec.reset_names))
        adapted = cell.adaptation_decay * adapted + s


def _like(total: Tensor, value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return total.sum_to_size(value.shape) if value.dim() else total.sum()
