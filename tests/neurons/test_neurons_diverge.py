"""Equations that the integrator cannot follow: an error, never spikes that are no numbers."""

import math

import pytest
import torch
from torch import nn

from rheobase.neurons import AdEx, HodgkinHuxley, Izhikevich, PhysicalEIF
from rheobase.stateful import streaming


def constant(current: float, milliseconds: float, dt: float) -> torch.Tensor:
    return torch.full((round(milliseconds / dt), 1, 1), current)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_too_large_a_step_is_refused_with_what_helps(method: str) -> None:
    neuron = HodgkinHuxley(dt=0.2, method=method)
    with pytest.raises(ValueError, match=rf"HodgkinHuxley.*not finite.*dt=0\.2 ms.*{method}"):
        neuron(constant(10.0, 20.0, 0.2))
    with streaming(neuron), pytest.raises(ValueError, match="smaller dt or 'exponential_euler'"):
        neuron(constant(10.0, 20.0, 0.2))
    spikes = HodgkinHuxley(dt=0.2, method="exponential_euler")(constant(10.0, 20.0, 0.2))
    assert spikes.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_input_that_is_no_number_is_refused(bad: float) -> None:
    x = constant(10.0, 5.0, 0.25)
    x[7] = bad
    with pytest.raises(ValueError, match="or the input is not finite"):
        Izhikevich(dt=0.25)(x)


def test_an_exported_network_is_not_asked() -> None:
    net = nn.Sequential(nn.Linear(1, 3), Izhikevich(dt=0.5))
    x = constant(10.0, 3.0, 0.5)
    exported = torch.export.export(net, (x,)).module()
    assert torch.equal(exported(x), net(x))


@pytest.mark.parametrize("dt", [0.1, 0.2, 0.5])
@pytest.mark.parametrize(
    ("cell", "current"), [(PhysicalEIF, 20.0), (AdEx, 1.0)], ids=["eif", "adex"]
)
def test_the_upswing_stays_finite_in_the_stages_of_runge_kutta(
    cell: type[PhysicalEIF] | type[AdEx], current: float, dt: float
) -> None:
    """It had overflowed there. The steps of 0.01 ms never reached that far: they are the truth."""
    coarse = cell(dt=dt, method="rk4")(constant(current, 100.0, dt))
    fine = cell(dt=0.01, method="rk4")(constant(current, 100.0, 0.01))
    assert coarse.sum() == fine.sum()
    late = dt * coarse.flatten().nonzero() - 0.01 * fine.flatten().nonzero()
    assert late.abs().max() <= 2.0 * dt * coarse.sum()  # each spike waits for the end of a step
