"""Rectangles, triangles and one-sided ramps: pieces of straight lines (and two with a log tail)."""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

import math
from typing import Any, ClassVar

from rheobase.ops.lang import abs, exp, indicator, log, maximum, minimum, tanh, where
from rheobase.surrogate.base import Surrogate, Value

__all__ = [
    "S2NN",
    "Heaviside",
    "LeakyKReLU",
    "LinearDecay",
    "LogTailedReLU",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "Rectangular",
    "StraightThrough",
    "Triangular",
    "Window",
]


class Rectangular(Surrogate):
    r"""Rectangle: :math:`g(z) = \alpha` for :math:`|z| < \frac{1}{2\alpha}`, else 0.

    Mass 1, height alpha. STBP's window a is ``alpha = 1 / (2 * a)``. SpikingJelly: ``Rect``.
    Source: Wu et al. 2018 (STBP).

    >>> import torch
    >>> Rectangular(alpha=1.0)(torch.tensor([0.0, 0.4, 0.6]))
    tensor([1., 1., 0.])
    """

    mass = "1"
    height = "alpha"

    def __init__(self, alpha: Value = 1.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return alpha * indicator(abs(z) < 0.5 / alpha, z)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        return minimum(maximum(alpha * z + 0.5, 0.0), 1.0)


class Triangular(Surrogate):
    r"""Triangle of equal height and half width: :math:`g(z) = \max(0, c - |z|)`.

    Mass c**2, height c. snnTorch's ``triangular`` changes sign at 0 instead, which is not copied.
    Source: the survey's eq. 6; Norse ``triangle`` (c = 1).

    >>> import torch
    >>> Triangular(c=1.0)(torch.tensor([0.0, 0.25, 2.0]))
    tensor([1.0000, 0.7500, 0.0000])
    """

    mass = "c**2"
    height = "c"

    def __init__(self, c: Value = 1.0) -> None:
        super().__init__(c=c)

    @staticmethod
    def derivative(z: Any, c: Any) -> Any:
        return maximum(c - abs(z), 0.0)

    @staticmethod
    def primitive(z: Any, c: Any) -> Any:
        x = minimum(maximum(z, -c), c)
        return x * (c - 0.5 * abs(x))


class PiecewiseQuadratic(Surrogate):
    r"""Triangle of mass 1: :math:`g(z) = \max(0, \alpha - \alpha^2|z|)`.

    Mass 1, height alpha. The triangle of TET, :math:`\max(0, \gamma - |z|)/\gamma^2`, is this
    one with alpha = 1/gamma. Source: Esser et al. 2016; Bellec et al. 2018; Deng et al. 2022.

    >>> import torch
    >>> PiecewiseQuadratic(alpha=2.0)(torch.tensor([0.0, 0.25, 0.5]))
    tensor([2., 1., 0.])
    """

    mass = "1"
    height = "alpha"

    def __init__(self, alpha: Value = 1.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return maximum(alpha - alpha * alpha * abs(z), 0.0)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        x = minimum(maximum(alpha * z, -1.0), 1.0)
        return x * (1.0 - 0.5 * abs(x)) + 0.5


class LinearDecay(Surrogate):
    r"""Triangle of half width 1: :math:`g(z) = \gamma\max(0, 1 - |z|)`.

    Mass gamma, height gamma. Meant for the normalised membrane :math:`z = h/\theta - 1`.
    Source: Rathi and Roy 2020 (Diet-SNN), Kim and Panda 2021 (BNTT); gamma 0.3 in both.

    >>> import torch
    >>> LinearDecay(gamma=0.3)(torch.tensor([0.0, 0.5, 2.0]))
    tensor([0.3000, 0.1500, 0.0000])
    """

    mass = "gamma"
    height = "gamma"

    def __init__(self, gamma: Value = 0.3) -> None:
        super().__init__(gamma=gamma)

    @staticmethod
    def derivative(z: Any, gamma: Any) -> Any:
        return gamma * maximum(1.0 - abs(z), 0.0)

    @staticmethod
    def primitive(z: Any, gamma: Any) -> Any:
        x = minimum(maximum(z, -1.0), 1.0)
        return gamma * x * (1.0 - 0.5 * abs(x))


class PiecewiseLeakyReLU(Surrogate):
    r"""Rectangle on a leak: :math:`g(z) = \frac{gain}{2w}` for :math:`|z| < w`, else c.

    Mass gain if c == 0 else inf, height gain/(2*w). SpikingJelly 2.0.0 has gain 1; its version
    0.0.0.0.14 had twice the height, silently: ``gain=2.0`` repeats runs of that time.
    Source: Yin et al. 2017; Huh and Sejnowski 2018.

    >>> import torch
    >>> PiecewiseLeakyReLU(w=1.0, c=0.01)(torch.tensor([0.0, 2.0]))
    tensor([0.5000, 0.0100])
    """

    mass = "gain if c == 0 else inf"
    height = "gain/(2*w)"
    above: ClassVar[dict[str, float]] = {"c": -math.inf}

    def __init__(self, w: Value = 1.0, c: Value = 0.01, gain: Value = 1.0) -> None:
        super().__init__(w=w, c=c, gain=gain)

    @staticmethod
    def derivative(z: Any, w: Any, c: Any, gain: Any) -> Any:
        inside = indicator(abs(z) < w, z)
        return inside * (0.5 * gain / w) + (1.0 - inside) * c

    @staticmethod
    def primitive(z: Any, w: Any, c: Any, gain: Any) -> Any:
        x = minimum(maximum(z, -w), w)
        return 0.5 * gain / w * x + c * (z - x) + 0.5


class StraightThrough(Surrogate):
    """Straight-through: the gradient passes unchanged, ``g(z) = 1``.

    Mass inf, height 1. Source: Bengio et al. 2013. SpikingJelly: ``DeterministicPass``.

    >>> import torch
    >>> StraightThrough()(torch.tensor([-5.0, 5.0]))
    tensor([1., 1.])
    """

    mass = "inf"
    height = "1"

    def __init__(self) -> None:
        super().__init__()

    @staticmethod
    def derivative(z: Any) -> Any:
        return indicator(abs(z) >= 0.0, z)

    @staticmethod
    def primitive(z: Any) -> Any:
        return z


class Window(Surrogate):
    r"""Straight-through between two bounds: :math:`g(z) = 1` for :math:`0 \le z \le upper`, else 0.

    Mass upper, height 1. Meant for integer neurons, whose z is the membrane in thresholds and
    ``upper`` the largest spike. Source: Luo et al. 2024 (I-LIF), arXiv 2407.20708.

    >>> import torch
    >>> Window(upper=4.0)(torch.tensor([-0.1, 0.0, 4.0, 4.1]))
    tensor([0., 1., 1., 0.])
    """

    mass = "upper"
    height = "1"

    def __init__(self, upper: Value = 1.0) -> None:
        super().__init__(upper=upper)

    @staticmethod
    def derivative(z: Any, upper: Any) -> Any:
        return indicator(z >= 0.0, z) * indicator(z <= upper, z)

    @staticmethod
    def primitive(z: Any, upper: Any) -> Any:
        return minimum(maximum(z, 0.0), upper)


class Heaviside(Surrogate):
    r"""One from a little below threshold on: :math:`g(z) = 1` for :math:`z \ge -window`, else 0.

    Mass inf, height 1. Source: sinabs ``Heaviside``, at threshold 1.

    >>> import torch
    >>> Heaviside(window=1.0)(torch.tensor([-2.0, -0.5, 5.0]))
    tensor([0., 1., 1.])
    """

    mass = "inf"
    height = "1"

    def __init__(self, window: Value = 1.0) -> None:
        super().__init__(window=window)

    @staticmethod
    def derivative(z: Any, window: Any) -> Any:
        return indicator(z >= -window, z)

    @staticmethod
    def primitive(z: Any, window: Any) -> Any:
        return maximum(z + window, 0.0)


class LeakyKReLU(Surrogate):
    r"""Leaky ramp: :math:`g(z) = k` for :math:`z \ge 0`, else the leak.

    Mass inf, height k. Source: SpikingJelly.

    >>> import torch
    >>> LeakyKReLU(leak=0.1, k=1.0)(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.1000, 1.0000, 1.0000])
    """

    mass = "inf"
    height = "k"
    above: ClassVar[dict[str, float]] = {"leak": -math.inf}

    def __init__(self, leak: Value = 0.0, k: Value = 1.0) -> None:
        super().__init__(leak=leak, k=k)

    @staticmethod
    def derivative(z: Any, leak: Any, k: Any) -> Any:
        up = indicator(z >= 0.0, z)
        return up * k + (1.0 - up) * leak

    @staticmethod
    def primitive(z: Any, leak: Any, k: Any) -> Any:
        return where(z < 0.0, leak * z, k * z)


class LogTailedReLU(Surrogate):
    r"""Ramp with a log tail: g = alpha for z <= 0, 1 up to z = 1, then :math:`1/z`.

    Mass inf, height alpha. Source: Cai et al. 2017 (as in SpikingJelly).

    >>> import torch
    >>> LogTailedReLU(alpha=0.1)(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([0.1000, 1.0000, 0.5000])
    """

    mass = "inf"
    height = "alpha"
    above: ClassVar[dict[str, float]] = {"alpha": -math.inf}

    def __init__(self, alpha: Value = 0.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        return where(z <= 0.0, alpha, 1.0 / maximum(z, 1.0))

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        tail = where(z > 1.0, 1.0 + log(maximum(z, 1.0)), z)
        return where(z <= 0.0, alpha * z, tail)


class S2NN(Surrogate):
    r"""Steps of two kinds: the logistic's below the threshold, the logarithm's above.

    :math:`g(z) = \alpha\,\sigma(\alpha z)(1 - \sigma(\alpha z))` for z < 0, else
    :math:`\frac{\beta}{z + 1}`. Mass inf, height beta. Source: Suetake et al. 2023 (S2NN).

    >>> import torch
    >>> S2NN()(torch.tensor([-0.5, 0.0, 1.0]))
    tensor([0.4200, 1.0000, 0.5000])
    """

    mass = "inf"
    height = "beta"

    def __init__(self, alpha: Value = 4.0, beta: Value = 1.0) -> None:
        super().__init__(alpha=alpha, beta=beta)

    @staticmethod
    def derivative(z: Any, alpha: Any, beta: Any) -> Any:
        e = exp(-alpha * abs(z))
        below = alpha * e / ((1.0 + e) * (1.0 + e))
        return where(z < 0.0, below, beta / (1.0 + abs(z)))

    @staticmethod
    def primitive(z: Any, alpha: Any, beta: Any) -> Any:
        above = beta * log(1.0 + maximum(z, 0.0))
        return 0.5 + where(z < 0.0, 0.5 * tanh(0.5 * alpha * z), above)
