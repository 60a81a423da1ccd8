"""The Fourier series of a square wave as the step."""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

from typing import Any, ClassVar

from rheobase.ops.lang import abs, floor, maximum, pi, round, sin
from rheobase.surrogate.base import Surrogate, Value

__all__ = ["SquarewaveFourierSeries"]


class SquarewaveFourierSeries(Surrogate):
    r"""Square wave: :math:`g(z) = \frac{4}{T}\sum_{i=1}^{n-1}\cos\frac{2\pi(2i-1)z}{T}`.

    The sum has n - 1 terms, as in SpikingJelly's code. It is computed closed, as
    :math:`\frac{\sin 2m\varphi}{2\sin\varphi}` with m = n - 1 and :math:`\varphi = 2\pi z/T`
    taken to the nearest multiple of :math:`\pi` first, near which the quotient is exact.
    Mass undefined, height 4*(n-1)/T_period. Source: SpikingJelly.

    Raises:
        ValueError: ``n`` is not an integer above 1, or ``T_period`` is not above 0.

    >>> import torch
    >>> SquarewaveFourierSeries(n=2, T_period=8.0)(torch.tensor([0.0, 1.0, 4.0]))
    tensor([ 0.5000,  0.3536, -0.5000])
    """

    mass = "undefined"
    height = "4*(n-1)/T_period"
    above: ClassVar[dict[str, float]] = {"n": 1.0}

    def __init__(self, n: int = 2, T_period: Value = 8.0) -> None:
        super().__init__(n=n, T_period=T_period)

    @staticmethod
    def derivative(z: Any, n: Any, T_period: Any) -> Any:
        turns = 2.0 * z / T_period
        whole = round(turns)
        parity = 1.0 - 2.0 * (whole - 2.0 * floor(0.5 * whole))  # cos((2i-1) pi whole)
        phase = pi * maximum(abs(turns - whole), 1e-12)  # at 0 the quotient is 0/0
        return 2.0 / T_period * parity * sin(2.0 * (n - 1.0) * phase) / sin(phase)
