"""Spikes of membranes that nothing is kept of, in one fused pass."""

from __future__ import annotations

from torch import Tensor

from rheobase.ops.scan import ScanSpec, scan
from rheobase.surrogate import Surrogate

__all__ = ["fire"]


def fire(h: Tensor, surrogate: Surrogate, threshold: float = 0.0, strict: bool = False) -> Tensor:
    """1 where ``h`` is at the threshold or above it (``strict``: above), else 0.

    One step of an IF. The gradient is the surrogate's at ``h - threshold``.

    >>> import torch
    >>> from rheobase.surrogate import ATan
    >>> fire(torch.tensor([-0.5, 0.0, 0.5]), ATan())
    tensor([0., 1., 1.])
    """
    x = h.unsqueeze(0)
    spec = ScanSpec.of(
        charge="integrate",
        fire="above" if strict else "at_or_above",
        reset="hard",
        surrogate=type(surrogate).__name__,
        detach_reset=True,
    )
    parameters = surrogate.parameters_for(x).items()
    slopes = {f"surrogate_{name}": value for name, value in parameters}
    values = {"threshold": threshold, "v_reset": 0.0, **slopes}
    return scan(x, 0.0, spec, values, keep=False)[0].squeeze(0)
