"""Surrogate gradients: what the derivative of a spike is taken to be.

A spike is ``s = 1 if z >= 0 else 0`` (``z = h - v_threshold``); its derivative is zero almost
everywhere, so training uses a ``g(z)`` in its place. Each class here is one ``g``: a scalar
function in the little language of `rheobase.ops.lang`, from which every backend is made. Which
``z`` it is given (``h - v_threshold`` or ``h / v_threshold - 1``) and whether a spike is fired at
z = 0 is for the neuron to say, not for the surrogate.

Two normalisations are in use, and each class says which is its own: *mass 1* (the integral of
``g`` is 1, so a surrogate of any width passes the same total gradient) and *height 1*
(``g(0) = 1``). `surrogates` lists all of them with both.

A parameter is a constant, an `nn.Parameter` to be learnt, or a schedule that `set_progress` moves
along in training.

The four curves of STBP (Wu et al. 2018), of parameters a1 to a4, are
``Rectangular(1 / a1)``, ``PiecewiseQuadratic(sqrt(a2) / 2)``, ``Sigmoid(1 / a3)`` and
``Gaussian(sqrt(a4))``. A width that follows a learnt decay (LSG) is the neuron's,
`rheobase.neurons.LSGLIF`, and so is a gradient that fades with the time since the last spike
(STDB), `rheobase.neurons.STDBIF`. Not here, because they rest on formulas still to be confirmed:
MPD-AGL and TrSG. Not here at all, because they are slips of a library rather than surrogates:
snnTorch's sign-changing ``triangular``, Norse's ``heavi_erfc`` and ``heavi_tanh`` as released
(`Erf` and `EvolvingTanh` are what they approximate).
"""

from rheobase.surrogate.algebraic import (
    FakeNumericalGradient,
    FastSigmoid,
    NonzeroSignLogAbs,
    QPseudoSpike,
    SoftSign,
    SuperSpike,
)
from rheobase.surrogate.base import (
    Schedule,
    Surrogate,
    SurrogateRow,
    Value,
    surrogate_class,
    surrogates,
)
from rheobase.surrogate.exponential import PeriodicExponential, PiecewiseExp, SingleExponential
from rheobase.surrogate.fourier import SquarewaveFourierSeries
from rheobase.surrogate.piecewise import (
    S2NN,
    Heaviside,
    LeakyKReLU,
    LinearDecay,
    LogTailedReLU,
    PiecewiseLeakyReLU,
    PiecewiseQuadratic,
    Rectangular,
    StraightThrough,
    Triangular,
    Window,
)
from rheobase.surrogate.sampled import LocalZO
from rheobase.surrogate.schedule import im_loss_schedule, linear_schedule, set_progress
from rheobase.surrogate.sigmoidal import (
    ATan,
    Dspike,
    Erf,
    EvolvingTanh,
    Gaussian,
    MultiGaussian,
    Sigmoid,
)

__all__ = [
    "S2NN",
    "ATan",
    "Dspike",
    "Erf",
    "EvolvingTanh",
    "FakeNumericalGradient",
    "FastSigmoid",
    "Gaussian",
    "Heaviside",
    "LeakyKReLU",
    "LinearDecay",
    "LocalZO",
    "LogTailedReLU",
    "MultiGaussian",
    "NonzeroSignLogAbs",
    "PeriodicExponential",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Rectangular",
    "Schedule",
    "Sigmoid",
    "SingleExponential",
    "SoftSign",
    "SquarewaveFourierSeries",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "SurrogateRow",
    "Triangular",
    "Value",
    "Window",
    "im_loss_schedule",
    "linear_schedule",
    "set_progress",
    "surrogate_class",
    "surrogates",
]
