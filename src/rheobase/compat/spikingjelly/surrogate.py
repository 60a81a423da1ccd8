"""Surrogate functions as modules: called on ``v - v_threshold`` they fire.

Each is a curve of `rheobase.surrogate` under the name, arguments and defaults that SpikingJelly
0.0.0.0.12 and 0.0.0.0.14 gave it. A class of one's own derives from `SurrogateFunctionBase` and
brings ``spiking_function``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rheobase import surrogate as curves
from rheobase.neurons import spike

__all__ = [
    "S2NN",
    "ATan",
    "Erf",
    "FakeNumericalGradient",
    "LeakyKReLU",
    "LogTailedReLU",
    "MultiArgsSurrogateFunctionBase",
    "NonzeroSignLogAbs",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Sigmoid",
    "SoftSign",
    "SquarewaveFourierSeries",
    "SurrogateFunctionBase",
    "atan",
    "erf",
    "heaviside",
    "piecewise_exp",
    "piecewise_quadratic",
    "sigmoid",
    "soft_sign",
]


def heaviside(x: Tensor) -> Tensor:
    """1 where ``x >= 0``, else 0; no gradient."""
    return (x >= 0).to(x)


class SurrogateFunctionBase(nn.Module):
    """A surrogate with one parameter.

    Args:
        alpha: the parameter.
        spiking: fire; False puts out the primitive, a smooth step, instead.
    """

    def __init__(self, alpha: float, spiking: bool = True) -> None:
        super().__init__()
        self.spiking = spiking
        self.alpha = alpha

    def set_spiking_mode(self, spiking: bool) -> None:
        """Fire, or put out the primitive."""
        self.spiking = spiking

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"alpha={self.alpha}, spiking={self.spiking}"

    def forward(self, x: Tensor) -> Any:
        """Spikes (or the primitive) of membranes above threshold."""
        function = self.spiking_function if self.spiking else self.primitive_function
        return function(x, self.alpha)

    @staticmethod
    def spiking_function(x: Tensor, alpha: float) -> Any:
        """Fire, with a gradient of one's own."""
        raise NotImplementedError("a surrogate of one's own brings spiking_function")

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Any:
        """The smooth step."""
        raise NotImplementedError("this surrogate has no primitive_function")


class MultiArgsSurrogateFunctionBase(nn.Module):
    """A surrogate with any parameters; a subclass brings ``forward``."""

    def __init__(self, spiking: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.spiking = spiking

    def set_spiking_mode(self, spiking: bool) -> None:
        """Fire, or put out the primitive."""
        self.spiking = spiking


class _Curve:
    """What makes a surrogate of a curve of `rheobase.surrogate`, of the same name unless said."""

    curve: ClassVar[type[curves.Surrogate]]
    names: ClassVar[tuple[str, ...]] = ("alpha",)
    at_threshold: ClassVar[float] = 0.5  # of the primitive
    spiking: bool

    def as_rheobase(self) -> curves.Surrogate:
        """The curve."""
        return self.curve(**{name: getattr(self, name) for name in self.names})

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (or the primitive) of membranes above threshold."""
        curve = self.as_rheobase()
        if self.spiking:
            return spike(x, curve)
        if curve.primitive is None:
            raise NotImplementedError(f"{type(self).__name__} has no primitive function here")
        values = curve.parameters_by_name().values()
        at_zero = curve.primitive(torch.zeros((), dtype=x.dtype), *values)
        smooth: Tensor = curve.primitive(x, *values) - at_zero + self.at_threshold
        return smooth


class PiecewiseQuadratic(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.PiecewiseQuadratic`."""

    curve = curves.PiecewiseQuadratic

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class PiecewiseExp(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.PiecewiseExp`."""

    curve = curves.PiecewiseExp

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class Sigmoid(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.Sigmoid`."""

    curve = curves.Sigmoid

    def __init__(self, alpha: float = 4.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class SoftSign(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.SoftSign`."""

    curve = curves.SoftSign

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class ATan(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.ATan`."""

    curve = curves.ATan

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class NonzeroSignLogAbs(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.NonzeroSignLogAbs`."""

    curve = curves.NonzeroSignLogAbs
    at_threshold = 0.0

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class Erf(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.Erf`."""

    curve = curves.Erf

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class QPseudoSpike(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.QPseudoSpike`."""

    curve = curves.QPseudoSpike

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class LogTailedReLU(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.LogTailedReLU`."""

    curve = curves.LogTailedReLU
    at_threshold = 0.0

    def __init__(self, alpha: float = 0.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)


class FakeNumericalGradient(_Curve, SurrogateFunctionBase):
    """`rheobase.surrogate.FakeNumericalGradient`, which always fires."""

    curve = curves.FakeNumericalGradient

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__(alpha, True)


class PiecewiseLeakyReLU(_Curve, MultiArgsSurrogateFunctionBase):
    """`rheobase.surrogate.PiecewiseLeakyReLU`, with 1/w inside, as both versions had it."""

    curve = curves.PiecewiseLeakyReLU
    names = ("w", "c")

    def __init__(self, w: float = 1.0, c: float = 0.01, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.w, self.c = w, c

    def as_rheobase(self) -> curves.Surrogate:
        """The curve; the primitive was that of half the height."""
        return curves.PiecewiseLeakyReLU(self.w, self.c, gain=2.0 if self.spiking else 1.0)


class SquarewaveFourierSeries(_Curve, MultiArgsSurrogateFunctionBase):
    """`rheobase.surrogate.SquarewaveFourierSeries`."""

    curve = curves.SquarewaveFourierSeries
    names = ("n", "T_period")

    def __init__(self, n: int = 2, T_period: float = 8, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.n, self.T_period = n, T_period


class S2NN(_Curve, MultiArgsSurrogateFunctionBase):
    """`rheobase.surrogate.S2NN`."""

    curve = curves.S2NN
    names = ("alpha", "beta")

    def __init__(self, alpha: float = 4.0, beta: float = 1.0, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.alpha, self.beta = alpha, beta


class LeakyKReLU(_Curve, MultiArgsSurrogateFunctionBase):
    """`rheobase.surrogate.LeakyKReLU`; ``spiking`` is its first argument."""

    curve = curves.LeakyKReLU
    names = ("leak", "k")
    at_threshold = 0.0

    def __init__(self, spiking: bool = True, leak: float = 0.0, k: float = 1.0) -> None:
        super().__init__(spiking)
        self.leak, self.k = leak, k


class _Applied:
    """A function of the kind ``atan.apply(x, alpha)``."""

    def __init__(self, curve: type[curves.Surrogate]) -> None:
        self.curve = curve

    def apply(self, x: Tensor, alpha: float) -> Tensor:
        """Fire."""
        return spike(x, self.curve(alpha=alpha))


atan = _Applied(curves.ATan)
erf = _Applied(curves.Erf)
piecewise_exp = _Applied(curves.PiecewiseExp)
piecewise_quadratic = _Applied(curves.PiecewiseQuadratic)
sigmoid = _Applied(curves.Sigmoid)
soft_sign = _Applied(curves.SoftSign)
