r"""Bells whose primitive is a sigmoid: arctangent, logistic, tanh, error function.

The squared hyperbolic secant is written with :math:`e^{-|x|}`, which cannot overflow:
:math:`\mathrm{sech}^2(x) = 4e/(1+e)^2` with :math:`e = e^{-2|x|}`.
"""
# ruff: noqa: D102 (derivative and primitive are described once, in Surrogate)

from __future__ import annotations

from typing import Any

from rheobase.ops.lang import abs, atan, erf, exp, indicator, maximum, minimum, pi, tanh
from rheobase.surrogate.base import Surrogate, Value

__all__ = ["ATan", "Dspike", "Erf", "EvolvingTanh", "Gaussian", "MultiGaussian", "Sigmoid"]


class ATan(Surrogate):
    r"""Arctangent: :math:`g(z) = \frac{\alpha/2}{1 + (\pi\alpha z/2)^2}`.

    Mass 1, height alpha/2. Source: Fang et al. 2021 (PLIF), arXiv 2007.05785.

    >>> import torch
    >>> ATan(alpha=2.0)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2884])
    """

    mass = "1"
    height = "alpha/2"

    def __init__(self, alpha: Value = 2.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        k = 0.5 * pi * alpha * z
        return 0.5 * alpha / (1.0 + k * k)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        return atan(0.5 * pi * alpha * z) / pi + 0.5


class Sigmoid(Surrogate):
    r"""Logistic: :math:`g(z) = \alpha\,\sigma(\alpha z)(1 - \sigma(\alpha z))`.

    Mass 1, height alpha/4. The default of the published spiking transformers (alpha 4).

    >>> import torch
    >>> Sigmoid(alpha=4.0)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.4200])
    """

    mass = "1"
    height = "alpha/4"

    def __init__(self, alpha: Value = 4.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        e = exp(-alpha * abs(z))
        return alpha * e / ((1.0 + e) * (1.0 + e))

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        return 0.5 * tanh(0.5 * alpha * z) + 0.5


class EvolvingTanh(Surrogate):
    r"""Hyperbolic tangent: :math:`g(z) = \frac{K}{2}\,\mathrm{sech}^2(Kz)`, K growing in training.

    Mass 1, height k/2. The same function as ``Sigmoid(2 * k)``; IM-Loss gives it the schedule
    ``k=im_loss_schedule(1.0, 10.0)``. Source: Guo et al. 2022, IM-Loss (evolutionary surrogate).

    >>> import torch
    >>> EvolvingTanh(k=3.0)(torch.tensor([0.0, 0.5]))
    tensor([1.5000, 0.2711])
    """

    mass = "1"
    height = "k/2"

    def __init__(self, k: Value = 1.0) -> None:
        super().__init__(k=k)

    @staticmethod
    def derivative(z: Any, k: Any) -> Any:
        e = exp(-2.0 * k * abs(z))
        return 2.0 * k * e / ((1.0 + e) * (1.0 + e))

    @staticmethod
    def primitive(z: Any, k: Any) -> Any:
        return 0.5 * tanh(k * z) + 0.5


class Dspike(Surrogate):
    r"""Dspike: :math:`g(z) = \frac{b}{2\tanh(b/2)}\,\mathrm{sech}^2(bz)` for |z| <= 1/2, else 0.

    Mass 1, height b/(2*tanh(b/2)). Between the rectangle (b to 0) and the spike itself (b to
    infinity). Source: Li et al. 2021, "Differentiable spike", with its centre moved to z = 0.

    >>> import torch
    >>> Dspike(b=3.0)(torch.tensor([0.0, 0.5, 0.6]))
    tensor([1.6572, 0.2995, 0.0000])
    """

    mass = "1"
    height = "b/(2*tanh(b/2))"

    def __init__(self, b: Value = 3.0) -> None:
        super().__init__(b=b)

    @staticmethod
    def derivative(z: Any, b: Any) -> Any:
        x = minimum(abs(z), 0.5)
        half = x - x + 0.5  # the number 1/2, of the kind of z: the language's tanh takes no float
        e = exp(-2.0 * b * x)
        sech2 = 4.0 * e / ((1.0 + e) * (1.0 + e))
        return indicator(abs(z) <= 0.5, z) * b * sech2 / (2.0 * tanh(b * half))

    @staticmethod
    def primitive(z: Any, b: Any) -> Any:
        x = minimum(maximum(z, -0.5), 0.5)
        half = x - x + 0.5
        return 0.5 * tanh(b * x) / tanh(b * half) + 0.5


class Erf(Surrogate):
    r"""Error function: :math:`g(z) = \frac{\alpha}{\sqrt\pi}\,e^{-\alpha^2 z^2}`.

    Mass 1, height alpha/sqrt(pi). A Gaussian of standard deviation 1/(alpha sqrt 2). Norse's
    ``heavi_erfc`` leaves out a factor (2 instead of k in front), which is not copied.
    Source: Esser et al. 2015; Wu et al. 2021; Yin et al. 2020 (as in SpikingJelly).

    >>> import torch
    >>> Erf(alpha=2.0)(torch.tensor([0.0, 0.5]))
    tensor([1.1284, 0.4151])
    """

    mass = "1"
    height = "alpha/sqrt(pi)"

    def __init__(self, alpha: Value = 2.0) -> None:
        super().__init__(alpha=alpha)

    @staticmethod
    def derivative(z: Any, alpha: Any) -> Any:
        x = alpha * z
        return 0.5641895835477563 * alpha * exp(-x * x)  # 1 / sqrt(pi)

    @staticmethod
    def primitive(z: Any, alpha: Any) -> Any:
        return 0.5 * erf(alpha * z) + 0.5


class Gaussian(Surrogate):
    r"""Gaussian: :math:`g(z) = \frac{1}{\sigma\sqrt{2\pi}}\,e^{-z^2/2\sigma^2}`.

    Mass 1, height 1/(sigma*sqrt(2*pi)). What the zeroth-order estimate of LocalZO (with Gaussian
    samples) is on average, with sigma = delta. Source: LocalZO, Mukhoty et al. 2023; sinabs.

    >>> import torch
    >>> Gaussian(sigma=0.5)(torch.tensor([0.0, 0.5]))
    tensor([0.7979, 0.4839])
    """

    mass = "1"
    height = "1/(sigma*sqrt(2*pi))"

    def __init__(self, sigma: Value = 0.5) -> None:
        super().__init__(sigma=sigma)

    @staticmethod
    def derivative(z: Any, sigma: Any) -> Any:
        x = z / sigma
        return 0.3989422804014327 / sigma * exp(-0.5 * x * x)  # 1 / sqrt(2 pi)

    @staticmethod
    def primitive(z: Any, sigma: Any) -> Any:
        return 0.5 * erf(0.7071067811865476 * z / sigma) + 0.5  # 1 / sqrt(2)


class MultiGaussian(Surrogate):
    r"""A Gaussian less two wide ones: :math:`(1+h)N(z;0,\sigma) - h\,N(z;\pm\sigma,s\sigma)`.

    Mass 1-h, height (1+h-2*h/s*exp(-0.5/s**2))/(sigma*sqrt(2*pi)). Negative far from threshold.
    Source: Yin et al. 2021, "Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks".

    >>> import torch
    >>> MultiGaussian()(torch.tensor([0.0, 0.5, 1.5]))
    tensor([ 0.8782,  0.5177, -0.0246])
    """

    mass = "1-h"
    height = "(1+h-2*h/s*exp(-0.5/s**2))/(sigma*sqrt(2*pi))"

    def __init__(self, sigma: Value = 0.5, h: Value = 0.15, s: Value = 6.0) -> None:
        super().__init__(sigma=sigma, h=h, s=s)

    @staticmethod
    def derivative(z: Any, sigma: Any, h: Any, s: Any) -> Any:
        x = z / sigma
        left = (x + 1.0) / s
        right = (x - 1.0) / s
        sides = exp(-0.5 * left * left) + exp(-0.5 * right * right)
        peak = exp(-0.5 * x * x)
        return 0.3989422804014327 / sigma * ((1.0 + h) * peak - h / s * sides)  # 1 / sqrt(2 pi)

    @staticmethod
    def primitive(z: Any, sigma: Any, h: Any, s: Any) -> Any:
        x = 0.7071067811865476 * z / sigma  # 1 / sqrt(2)
        left = (x + 0.7071067811865476) / s
        right = (x - 0.7071067811865476) / s
        return 0.5 * ((1.0 + h) * erf(x) - h * (erf(left) + erf(right))) + 0.5
