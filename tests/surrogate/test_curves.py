"""Every surrogate: its mass and height are those it states, and its primitive belongs to it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheobase.surrogate import (
    Dspike,
    Gaussian,
    Heaviside,
    PiecewiseLeakyReLU,
    PiecewiseQuadratic,
    Rectangular,
    Sigmoid,
    SquarewaveFourierSeries,
    Surrogate,
    surrogates,
)

# A second set of parameters for those where "twice the default" would be out of range or dull.
OTHER: dict[str, dict[str, float]] = {
    "LeakyKReLU": {"leak": -0.2, "k": 0.7},
    "LogTailedReLU": {"alpha": 0.3},
    "MultiGaussian": {"sigma": 0.4, "h": 0.3, "s": 4.0},
    "PiecewiseLeakyReLU": {"w": 0.3, "c": 0.0, "gain": 2.0},
    "SquarewaveFourierSeries": {"n": 5, "T_period": 3.0},
}

CASES = [
    pytest.param(row.cls(**values), id=f"{row.name}-{which}")
    for row in surrogates()
    for which, values in {
        "default": {},
        "other": OTHER.get(row.name, {n: 2.0 * v for n, v in row.parameters.items()}),
    }.items()
]
CLOSED = [case for case in CASES if case.values[0].primitive is not None]

each = pytest.mark.parametrize("surrogate", CASES)
each_closed = pytest.mark.parametrize("surrogate", CLOSED)


def formula(surrogate: Surrogate, text: str) -> float:
    names: dict[str, Any] = {n: getattr(math, n) for n in ("exp", "inf", "pi", "sqrt", "tanh")}
    return float(eval(text, {**names, **surrogate.parameters_by_name()}))


def mass_within(surrogate: Surrogate, reach: float) -> float:
    """The integral of g from -reach to reach, on a grid fine near 0 and coarse far out."""
    z = torch.logspace(-9, math.log10(reach), 400_001, dtype=torch.float64)
    return sum(float(torch.trapezoid(surrogate(side), z)) for side in (z, -z))


def primitive(surrogate: Surrogate, z: Tensor, *values: Any) -> Tensor:
    result: Tensor = type(surrogate).primitive(
        z, *(values or surrogate.parameters_by_name().values())
    )
    return result


@each
def test_height_is_the_stated_one(surrogate: Surrogate) -> None:
    height = float(surrogate(torch.zeros((), dtype=torch.float64)))
    assert height == pytest.approx(formula(surrogate, surrogate.height), rel=1e-12)


@each
def test_mass_is_the_stated_one(surrogate: Surrogate) -> None:
    if isinstance(surrogate, SquarewaveFourierSeries):
        assert mass_within(surrogate, surrogate.T_period) == pytest.approx(0.0, abs=1e-4)
        return
    mass = formula(surrogate, surrogate.mass)
    if mass == math.inf:
        assert mass_within(surrogate, 1e3) > mass_within(surrogate, 1e1) + 0.5
    else:
        assert mass_within(surrogate, 1e9) == pytest.approx(mass, rel=1e-3)


@each
def test_docstring_states_mass_and_height(surrogate: Surrogate) -> None:
    words = " ".join((surrogate.__doc__ or "").split())
    assert f"Mass {surrogate.mass}, height {surrogate.height}." in words
    assert "Source: " in words or "published" in words


@each_closed
def test_primitive_has_the_derivative(surrogate: Surrogate) -> None:
    """By autograd, as learnable parameters use it; also at 0, where absolute values have a kink."""
    z = torch.linspace(-4.0, 4.0, 1601, dtype=torch.float64)
    step = 1e-9
    smooth = (surrogate(z + step) - surrogate(z - step)).abs() < 1e-6
    z = z[smooth].requires_grad_()
    assert len(z) > 1500
    (slope,) = torch.autograd.grad(primitive(surrogate, z).sum(), z)
    torch.testing.assert_close(slope, surrogate(z.detach()), rtol=1e-9, atol=1e-12)


@each_closed
def test_primitive_is_continuous_and_its_rise_is_the_integral(surrogate: Surrogate) -> None:
    """Not by autograd: a wrong constant on one side of a kink would pass there."""
    z = torch.linspace(-3.0, 3.0, 60_001, dtype=torch.float64)
    rise = primitive(surrogate, z) - primitive(surrogate, z[:1])
    integral = torch.cat([z.new_zeros(1), torch.cumulative_trapezoid(surrogate(z), z)])
    torch.testing.assert_close(rise, integral, rtol=0.0, atol=5e-4)


@each_closed
def test_gradients_of_parameters(surrogate: Surrogate) -> None:
    """What training moves them by: the primitive's partials, against finite differences."""
    z = torch.tensor([-2.3, -0.6, -0.11, 0.07, 0.33, 0.9, 1.7], dtype=torch.float64)
    values = [torch.tensor(v, dtype=torch.float64) for v in surrogate.parameters_by_name().values()]
    if values:
        inputs = tuple(v.requires_grad_() for v in values)
        assert torch.autograd.gradcheck(lambda *v: primitive(surrogate, z, *v), inputs)


def test_the_four_curves_of_stbp() -> None:
    """As the paper writes them, of z = u - threshold (Wu et al. 2018)."""
    z, a = torch.linspace(-3.0, 3.0, 1202, dtype=torch.float64), 0.7
    fall = torch.exp(-z / a)
    curves = [
        (Rectangular(1.0 / a), (z.abs() < a / 2).double() / a),
        (
            PiecewiseQuadratic(math.sqrt(a) / 2.0),
            (math.sqrt(a) / 2.0 - a / 4.0 * z.abs()) * (z.abs() < 2.0 / math.sqrt(a)),
        ),
        (Sigmoid(1.0 / a), fall / a / (1.0 + fall).square()),
        (Gaussian(math.sqrt(a)), torch.exp(-z.square() / (2 * a)) / math.sqrt(2 * math.pi * a)),
    ]
    for surrogate, expected in curves:
        torch.testing.assert_close(surrogate(z), expected, rtol=1e-12, atol=1e-14)


FAR = torch.tensor([-1e30, -3e4, -500.0, -90.0, -0.0, 0.0, 1e-30, 90.0, 500.0, 3e4, 1e30])


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_far_from_threshold_stays_finite(surrogate: Surrogate, dtype: torch.dtype) -> None:
    z = FAR.to(dtype)
    g = surrogate(z)
    assert g.dtype == dtype
    assert g.shape == z.shape
    assert bool(g.isfinite().all())


@each_closed
def test_learning_far_from_threshold_stays_finite(surrogate: Surrogate) -> None:
    z = FAR.clone().requires_grad_()
    values = [torch.tensor(v, requires_grad=True) for v in surrogate.parameters_by_name().values()]
    smooth = primitive(surrogate, z, *values)
    gradients = torch.autograd.grad(smooth.sum(), [z, *values], allow_unused=True)
    assert bool(smooth.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in gradients if g is not None)


@each
def test_float32_agrees_with_float64(surrogate: Surrogate) -> None:
    z = torch.linspace(-4.0, 4.0, 1601)
    away = (surrogate(z.double() + 1e-5) - surrogate(z.double() - 1e-5)).abs() < 1e-2
    wanted = surrogate(z.double())
    error = (surrogate(z).double() - wanted).abs()[away]
    assert float(error.max()) <= 3e-6 * float(wanted.abs().max())


def test_which_edges_belong_to_the_window() -> None:
    edge = torch.tensor([-0.5, 0.5])
    assert Rectangular(alpha=1.0)(edge).tolist() == [0.0, 0.0]
    assert PiecewiseLeakyReLU(w=0.5, c=0.0)(edge).tolist() == [0.0, 0.0]
    assert bool((Dspike()(edge) > 0.0).all())
    assert Heaviside(window=0.5)(edge).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("n", "period"), [(2, 8.0), (3, 2.0), (7, 1.5)])
def test_squarewave_is_the_sum_of_its_cosines(n: int, period: float) -> None:
    z = torch.linspace(-6.0, 6.0, 2401, dtype=torch.float64)
    angle = 2.0 * math.pi * z / period
    terms = [torch.cos((2 * i - 1) * angle) for i in range(1, n)]
    wanted = 4.0 / period * torch.stack(terms).sum(0)
    torch.testing.assert_close(
        SquarewaveFourierSeries(n, period)(z), wanted, rtol=0.0, atol=1e-11 * n
    )


def test_learnable_squarewave_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be learnt"):
        SquarewaveFourierSeries(T_period=nn.Parameter(torch.tensor(8.0)))
