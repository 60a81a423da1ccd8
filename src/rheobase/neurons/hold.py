"""Refractory periods: the step of a neuron on the scan, held after each spike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from rheobase.ops.scan import ScanSpec
from rheobase.ops.scan.layout import compute_dtype, stacked_like, steps_of
from rheobase.ops.scan.reference import scan_reference

__all__ = ["hold"]


def hold(
    x: Tensor,
    first: Tensor | float,
    spec: ScanSpec,
    coefficients: Mapping[str, float | Tensor],
    refractory: float,
    tap: Literal["h", "v"] | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Run a neuron whose membrane stands still for ``refractory`` steps after a spike.

    Args:
        x: input current ``[T, ...]``.
        first: the membrane to start from, or the last state of an earlier piece.
        spec: which neuron.
        coefficients: its values, as `rheobase.ops.scan.scan` takes them.
        refractory: steps without input, leak and spike; a synapse's current goes on.
        tap: also return the membranes charged ("h") or after reset ("v").

    Returns:
        spikes ``[T, ...]``; the tapped membranes ``[T, ...]`` or None; the last state.
    """
    compute = compute_dtype(x)
    if isinstance(first, Tensor):
        *own, left = first.unbind(0)
    else:
        own = [torch.full_like(x[0], first, dtype=compute)]
        own += [torch.zeros_like(own[0])] * spec.filtered
        left = torch.zeros_like(own[0])
    spikes: list[Tensor] = []
    membranes: list[Tensor] = []
    for t, x_t in enumerate(steps_of(x)):
        state = stacked_like(own, x) if spec.filtered else own[0]
        at = {name: _of_step(value, t, x) for name, value in coefficients.items()}
        s, h, v, last = scan_reference(x_t.unsqueeze(0), state, spec, at)
        ready = left <= 0.0
        s = s[0] * ready
        h, v = (torch.where(ready, membrane[0], own[0]) for membrane in (h, v))
        left = torch.where(s != 0.0, float(refractory), (left - 1.0).clamp_min(0.0))
        own = [v, last[1]] if spec.filtered else [v]
        spikes.append(s)
        membranes.append(v if tap == "v" else h)
    tapped = stacked_like(membranes, x) if tap else None
    return stacked_like(spikes, x), tapped, stacked_like([*own, left], x)


def _of_step(value: float | Tensor, t: int, x: Tensor) -> float | Tensor:
    """A coefficient as it is at step t: one with an axis of time has only this step."""
    if not isinstance(value, Tensor) or value.dim() < x.dim() or value.shape[0] == 1:
        return value
    return value[t : t + 1]
