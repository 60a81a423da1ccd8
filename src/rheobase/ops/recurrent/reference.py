"""The recurrent scan step by step in plain PyTorch, differentiated by autograd: the one to read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.ops.recurrent.cell import Cell
from rheobase.ops.scan.reference import scan_reference

__all__ = ["recurrent_reference"]


def recurrent_reference(
    x: Tensor,
    weight: Tensor,
    state: Tensor,
    cell: Cell,
    coefficients: Mapping[str, float | Tensor],
) -> tuple[Tensor, Tensor]:
    """Run a recurrent layer over time.

    Args:
        x: input current ``[T, N, F]``, float32 or float64.
        weight: from the last spikes to the current, ``[F, F]`` (as in `nn.Linear`).
        state: before the first step, ``[4, N, F]`` (see `first_state`).
        cell: which neuron.
        coefficients: a value for every name of ``cell.spec.names``: a number, or a tensor that
            broadcasts to ``x`` (a leading axis of size T varies over time).

    Returns:
        spikes ``[T, N, F]`` and the last state ``[4, N, F]``.
    """
    s, u, current, adapted = state.unbind(0)
    spikes = []
    for t, x_t in enumerate(x.unbind(0)):
        current = cell.current_decay * current + x_t + F.linear(s, weight)
        at = {name: _of_step(value, t, x) for name, value in coefficients.items()}
        at["threshold"] = at["threshold"] + cell.adaptation * adapted
        fired, _, _, u = scan_reference(current.unsqueeze(0), u, cell.spec, at)
        s = fired.squeeze(0)
        adapted = cell.adaptation_decay * adapted + s
        spikes.append(s)
    return torch.stack(spikes), torch.stack([s, u, current, adapted])


def _of_step(value: float | Tensor, t: int, x: Tensor) -> float | Tensor:
    """The coefficient of step t, as it broadcasts to ``[N, F]``."""
    if not isinstance(value, Tensor) or value.dim() < x.dim():
        return value
    return value.select(0, t if value.shape[0] > 1 else 0)
