"""The sampled zeroth-order surrogate of LocalZO."""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase.ops.lang import abs, indicator, maximum, minimum
from rheobase.surrogate.base import Surrogate, Value

__all__ = ["LocalZO"]


class LocalZO(Surrogate):
    r"""Random rectangles: the mean of five :math:`r/2\delta` for :math:`|z| < \delta r`, else 0.

    A two-point estimate of the derivative of the spike along a random direction, five times. A
    neuron draws each r, the absolute value of a normal number, anew for every element and step,
    whenever gradients are wanted (from PyTorch's generator); the defaults of 1 stand for a draw not
    made. Its expectation is `Gaussian` with sigma = delta, which costs nothing to draw.

    Mass (r1**2 + r2**2 + r3**2 + r4**2 + r5**2)/5, height (r1 + r2 + r3 + r4 + r5)/(10*delta). The
    mean mass is 1. Source: Mukhoty et al. 2023 (LocalZO), arXiv 2302.00910, algorithm 1; five
    samples and delta 0.5 as in the released code.

    >>> LocalZO(delta=0.5, r1=2.0)(torch.tensor([0.0, 0.75]))
    tensor([1.2000, 0.4000])
    """

    mass = "(r1**2 + r2**2 + r3**2 + r4**2 + r5**2)/5"
    height = "(r1 + r2 + r3 + r4 + r5)/(10*delta)"

    def __init__(
        self,
        delta: Value = 0.5,
        r1: Value = 1.0,
        r2: Value = 1.0,
        r3: Value = 1.0,
        r4: Value = 1.0,
        r5: Value = 1.0,
    ) -> None:
        super().__init__(delta=delta, r1=r1, r2=r2, r3=r3, r4=r4, r5=r5)

    def parameters_for(self, x: Tensor) -> dict[str, float | Tensor]:
        """The width, and five draws for every element of ``x``."""
        values = super().parameters_for(x)
        if torch.is_grad_enabled():
            names = list(self.defaults)[1:]
            values |= {name: torch.randn_like(x.detach()).abs_() for name in names}
        return values

    @staticmethod
    def derivative(z: Any, delta: Any, r1: Any, r2: Any, r3: Any, r4: Any, r5: Any) -> Any:
        a = abs(z) / delta
        first = r1 * indicator(a < r1, z) + r2 * indicator(a < r2, z) + r3 * indicator(a < r3, z)
        return (first + r4 * indicator(a < r4, z) + r5 * indicator(a < r5, z)) / (10.0 * delta)

    @staticmethod
    def primitive(z: Any, delta: Any, r1: Any, r2: Any, r3: Any, r4: Any, r5: Any) -> Any:
        a = z / delta
        first = r1 * minimum(maximum(a, -r1), r1) + r2 * minimum(maximum(a, -r2), r2)
        second = r3 * minimum(maximum(a, -r3), r3) + r4 * minimum(maximum(a, -r4), r4)
        return (first + second + r5 * minimum(maximum(a, -r5), r5)) / 10.0
