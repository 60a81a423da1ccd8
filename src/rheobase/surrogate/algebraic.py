"""Rational functions and powers of the distance to the threshold: heavy tails, cheap to compute."""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

from typing import Any, ClassVar

from rheobase.ops.lang import abs, exp, log, maximum, minimum, sign, where
from rheobase.surrogate.base import Surrogate, Value

__all__ = [
    "FakeNumericalGradient",
    "FastSigmoid",
    "NonzeroSignLogAbs",
    "QPseudoSpike",
    "SoftSign",
    "SuperSpike",
]


class FastSigmoid(Surrogate):
    r"""Fast sigmoid: :math:`g(z) = \frac{1}{(k|z| + 1)^2}`.

    Mass 2/k, height 1. snnTorch has k = 25, DECOLLE k = 10; Norse documents k = 100 but
    computes k = 1 whatever is asked for. Source: Zenke and Ganguli 2018.

    >>> import torch
    >>> FastSigmoid(k=25.0)(torch.tensor([0.0, 0.04]))
    tensor([1.0000, 0.2500])
    """

    mass = "2/k"
    height = "1"

    def __init__(self, k: Value = 25.0) -> None:
        super().__init__(k=k)

    @staticmethod
    def derivative(z: Any, k: Any) -> Any:
        x = 1.0 + k * abs(z)
        return 1.0 / (x * x)

    @staticmethod
    def primitive(z: Any, k: Any) -> Any:
        return z / (1.0 + k * abs(z))


class SuperSpike(Surrogate):
    r"""Fast sigmoid with a free height: :math:`g(z) = \frac{\alpha}{(1 + \beta|z|)^2}`.

    Mass 2*alpha/beta, height alpha. SpikingJelly's has beta = 1. Source: Zenke and Ganguli 2018,
    whose code has beta in front too: ``SuperSpike(beta, beta)``.

    >>> import torch
    >>> SuperSpike(alpha=1.0)(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.2500])
    """

    mass = "2*alpha/beta"
    height = "alpha"

    def __init__(self, alpha: Value = 1.0, beta: Value = 1.0) -> None:
        super().__init__(alpha=alpha, beta=beta)

    @staticmethod
    def derivative(z: Any, alpha: Any, beta: Any) -> Any:
        x = 1.0 + beta * abs(z)
        return alpha / (x * x)

    @staticmethod
    def primitive(z: Any, alpha: Any, beta: Any) -> Any:
        return alpha * z / (1.0 + beta * abs(z))


class SoftSign(Surrogate):
    r"""Soft sign: :math:`g(z) = \frac{1}{2\alpha(1/\alpha + |z|)^2}`.

    Mass 1, height alpha/2. The fast sigmoid normalised. Source: SpikingJelly.

    >>> import torch
    >>> SoftSign(alpha=2.0)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2500])
    """

    mass = "1"
    height = "alpha/2"

    def __init__(self, alpha: Value = 2.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        x = 1.0 + alpha * abs(z)
        return 0.5 * alpha / (x * x)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        return 0.5 * alpha * z / (1.0 + alpha * abs(z)) + 0.5


class QPseudoSpike(Surrogate):
    r"""A power with tail exponent alpha: :math:`g(z) = (1 + \frac{2|z|}{\alpha - 1})^{-\alpha}`.

    Mass 1, height 1. Source: Herranz-Celotti and Rouat 2022.

    >>> import torch
    >>> QPseudoSpike(alpha=2.0)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2500])
    """

    mass = "1"
    height = "1"
    above: ClassVar[dict[str, float]] = {"alpha": 1.0}

    def __init__(self, alpha: Value = 2.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return exp(-alpha * log(1.0 + 2.0 / (alpha - 1.0) * abs(z)))

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        slope = 2.0 / (alpha - 1.0)
        rise = 0.5 * exp((1.0 - alpha) * log(1.0 - slope * minimum(z, 0.0)))
        fall = 0.5 * exp((1.0 - alpha) * log(1.0 + slope * maximum(z, 0.0)))
        return where(z < 0.0, rise, 1.0 - fall)


class NonzeroSignLogAbs(Surrogate):
    r"""Derivative of a signed logarithm: :math:`g(z) = \frac{1}{1/\alpha + |z|}`.

    Mass inf, height alpha. Source: SpikingJelly.

    >>> import torch
    >>> NonzeroSignLogAbs(alpha=1.0)(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.5000])
    """

    mass = "inf"
    height = "alpha"

    def __init__(self, alpha: Value = 1.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return alpha / (1.0 + alpha * abs(z))

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        below = log(1.0 - alpha * minimum(z, 0.0))
        above = log(1.0 + alpha * maximum(z, 0.0))
        return where(z < 0.0, -below, above)


class FakeNumericalGradient(Surrogate):
    r"""The chord from the origin, cut off: :math:`g(z) = \min(1/|z|, \alpha)`.

    Mass inf, height alpha. Source: SpikingJelly.

    >>> import torch
    >>> FakeNumericalGradient(alpha=0.3)(torch.tensor([0.0, 5.0]))
    tensor([0.3000, 0.2000])
    """

    mass = "inf"
    height = "alpha"

    def __init__(self, alpha: Value = 0.3) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return 1.0 / maximum(abs(z), 1.0 / alpha)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        x = alpha * z
        tail = sign(z) * (1.0 + log(maximum(abs(x), 1.0)))
        return where(abs(x) < 1.0, x, tail)
