"""Neurons: their dynamics, and what they refuse."""

import math

import pytest
import torch

from rheobase.neurons import IF, LIF, PLIF, Neuron, neuron_factory
from rheobase.surrogate import ATan, Sigmoid, set_progress

NEURONS = [
    IF(),
    IF(v_reset=None),
    LIF(tau=2.0),
    LIF(tau=1.5, v_reset=None, strict=True),
    LIF(tau=3.0, decay_input=False, v_reset=-0.5),
    PLIF(tau=1.7),
    PLIF(channels=3, decay_input=False, v_reset=None),
]


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_spikes_are_binary_and_keep_shape_and_dtype(neuron: Neuron) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = (torch.rand(5, 2, 3, 4) * 3).to(dtype)
        spikes, v = neuron(x, tap="v")
        assert spikes.shape == v.shape == x.shape
        assert spikes.dtype == dtype
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}
        assert 0.0 < spikes.double().mean() < 1.0


def test_nothing_survives_a_call() -> None:
    neuron, x = LIF(), torch.rand(4, 2, 3, requires_grad=True)
    first = neuron(x)
    second = neuron(x)
    assert torch.equal(first, second)
    first.sum().backward()
    second.sum().backward()  # no "backward a second time"
    assert not neuron.state_dict()


def test_strict_fires_only_above() -> None:
    x = torch.ones(1, 1, 1)
    assert IF()(x).item() == 1.0
    assert IF(strict=True)(x).item() == 0.0


def test_tau_of_a_power_of_two_is_the_same_as_division() -> None:
    x = torch.rand(9, 2, 40, dtype=torch.float64) * 3
    fast, divided = LIF(tau=4.0), LIF(tau=4.0)
    divided.charge = "relax"
    assert (fast.charge, divided.charge) == ("blend", "relax")
    assert torch.equal(fast(x), divided(x))


@pytest.mark.parametrize("v_reset", [0.0, -0.4, None])
@pytest.mark.parametrize("decay_input", [True, False])
def test_plif_is_lif_at_its_initial_tau(v_reset: float | None, decay_input: bool) -> None:
    x = torch.rand(9, 2, 40, dtype=torch.float64) * 3
    options = {"v_reset": v_reset, "decay_input": decay_input}
    plif = PLIF(tau=2.0, **options).double()
    assert torch.equal(plif(x), LIF(tau=2.0, **options)(x))
    assert math.isclose(float(plif.tau.detach()), 2.0)


def test_plif_per_channel_is_each_channel_alone() -> None:
    x = torch.rand(9, 2, 3, 4, dtype=torch.float64) * 3
    whole = PLIF(channels=3).double()
    whole.w.data = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    for c in range(3):
        one = PLIF().double()
        one.w.data = whole.w.data[c].clone()
        assert torch.equal(whole(x)[:, :, c], one(x[:, :, c]))


def test_learnable_surrogate_width_gets_a_gradient() -> None:
    neuron = LIF(surrogate=ATan(alpha=torch.nn.Parameter(torch.tensor(2.0))))
    x = torch.rand(4, 2, 8, requires_grad=True) * 2
    spikes = neuron(x)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    spikes.sum().backward()
    assert neuron.surrogate.alpha.grad.abs() > 0
    assert torch.equal(spikes, LIF()(x))


def test_membrane_taps_carry_gradients() -> None:
    x = torch.rand(4, 2, 8, dtype=torch.float64, requires_grad=True)
    spikes, h = LIF()(x, tap="h")
    assert torch.equal(spikes, (h >= 1.0).double())
    torch.autograd.grad(h.square().sum(), x)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (torch.ones(4, 2, dtype=torch.int64), TypeError, "floating point input, got torch.int64"),
        (torch.ones(4), ValueError, r"takes \[T, N, ...\] \(time first\), got shape \[4\]"),
        (torch.ones(0, 2, 3), ValueError, "empty input"),
        (torch.ones(4, 0, 3), ValueError, "empty input"),
    ],
)
def test_bad_input_is_refused(x: torch.Tensor, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        LIF()(x)


@pytest.mark.parametrize("tau", [0.5, 0.0, -1.0, math.nan])
def test_bad_tau_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match=r"tau must be at least 1|finite number as tau"):
        LIF(tau=tau)
    with pytest.raises(ValueError, match=r"tau must be above 1|finite number as tau"):
        PLIF(tau=tau)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"v_reset=1\.0 is not below v_threshold=1.0"):
        IF(v_reset=1.0)
    with pytest.raises(ValueError, match="PLIF has 3 channels"):
        PLIF(channels=3)(torch.rand(4, 2, 5, 6))
    with pytest.raises(ValueError, match="unknown neuron 'liff'; did you mean 'lif'"):
        neuron_factory("liff")
    with pytest.raises(TypeError, match=r"PSN: missing .*'T'; .* as neuron_kwargs="):
        neuron_factory("psn")()
    assert neuron_factory("psn")(T=3).T == 3


def test_factory_overrides() -> None:
    make = neuron_factory(LIF, tau=4.0, surrogate=Sigmoid())
    neuron = make(v_threshold=0.5)
    assert (neuron.tau, neuron.v_threshold) == (4.0, 0.5)
    assert isinstance(neuron.surrogate, Sigmoid)


def test_a_surrogate_may_be_data() -> None:
    neuron = neuron_factory("lif", surrogate={"name": "EvolvingTanh", "k": [1.0, 10.0]})()
    assert neuron.surrogate.k == 1.0
    set_progress(neuron, 1.0)
    assert neuron.surrogate.k == 10.0
    assert isinstance(neuron_factory("if", surrogate="Sigmoid")().surrogate, Sigmoid)
    assert neuron_factory("if", surrogate=None)().surrogate.alpha == 2.0
    for given, message in (
        ("Sigmoit", "did you mean 'Sigmoid'"),
        ({"name": "Sigmoid", "alfa": 1.0}, "did you mean 'alpha'"),
        ({"alpha": 1.0}, "lacks its name"),
    ):
        with pytest.raises(ValueError, match=message):
            neuron_factory("if", surrogate=given)
