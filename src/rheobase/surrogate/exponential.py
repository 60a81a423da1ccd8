"""Exponentials of the distance to the threshold.

In the primitives the two sides of the threshold are clipped before ``exp``, so that the side not
taken can neither overflow nor spoil a gradient.
"""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

from typing import Any

from rheobase.ops.lang import abs, exp, floor, maximum, minimum, where
from rheobase.surrogate.base import Surrogate, Value

__all__ = ["PeriodicExponential", "PiecewiseExp", "SingleExponential"]


class PiecewiseExp(Surrogate):
    r"""Two-sided exponential: :math:`g(z) = \frac{\alpha}{2}\,e^{-\alpha|z|}`.

    Mass 1, height alpha/2. Source: Neftci et al. 2019; the shape of SLAYER.

    >>> import torch
    >>> PiecewiseExp(alpha=1.0)(torch.tensor([0.0, 0.5]))
    tensor([0.5000, 0.3033])
    """

    mass = "1"
    height = "alpha/2"

    def __init__(self, alpha: Value = 1.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return 0.5 * alpha * exp(-alpha * abs(z))

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        rise = 0.5 * exp(alpha * minimum(z, 0.0))
        fall = 0.5 * exp(-alpha * maximum(z, 0.0))
        return where(z < 0.0, rise, 1.0 - fall)


class SingleExponential(Surrogate):
    r"""Exponential of SLAYER: :math:`g(z) = \frac{scale}{width}\,e^{-|z|/width}`.

    Mass 2*scale, height scale/width. Source: Shrestha and Orchard 2018 (SLAYER), as in sinabs at
    threshold 1.

    >>> import torch
    >>> SingleExponential(width=0.5)(torch.tensor([0.0, 0.5]))
    tensor([2.0000, 0.7358])
    """

    mass = "2*scale"
    height = "scale/width"

    def __init__(self, width: Value = 0.5, scale: Value = 1.0) -> None:
        super().__init__(width=width, scale=scale)

    @staticmethod
    def derivative(z: Any, width: Any, scale: Any) -> Any:
        return scale / width * exp(-abs(z) / width)

    @staticmethod
    def primitive(z: Any, width: Any, scale: Any) -> Any:
        rise = scale * exp(minimum(z, 0.0) / width)
        fall = scale * exp(-maximum(z, 0.0) / width)
        return where(z < 0.0, rise, 2.0 * scale - fall)


class PeriodicExponential(Surrogate):
    r"""A peak at every whole threshold: for neurons that fire several spikes in a step.

    :math:`g(z) = e^{-|z|/width}` below the threshold and :math:`e^{-2|z - n|/width}` above it,
    n the integer nearest to z. Mass inf, height 1. Source: Weidel and Sheik 2021
    (WaveSense), as in sinabs at threshold 1.

    >>> import torch
    >>> PeriodicExponential(width=0.5)(torch.tensor([-0.5, 0.0, 0.5, 1.0]))
    tensor([0.3679, 1.0000, 0.1353, 1.0000])
    """

    mass = "inf"
    height = "1"

    def __init__(self, width: Value = 0.5) -> None:
        super().__init__(width=width)

    @staticmethod
    def derivative(z: Any, width: Any) -> Any:
        away = abs(z - floor(z + 0.5))
        distance = where(z < 0.0, -z, 2.0 * away)
        return exp(-distance / width)

    @staticmethod
    def primitive(z: Any, width: Any) -> Any:
        rise = width * exp(minimum(z, 0.0) / width)
        n = floor(z + 0.5)
        r = z - n
        before = exp(2.0 * minimum(r, 0.0) / width)
        after = exp(-2.0 * maximum(r, 0.0) / width)
        half = where(r < 0.0, before - 1.0, 1.0 - after)
        period = 1.0 - exp(-(r - r + 1.0) / width)  # the mass of one peak, over width
        return where(z < 0.0, rise, width * (1.0 + n * period + 0.5 * half))
