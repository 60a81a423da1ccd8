"""The neurons of direct training: what each one is a case of, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from rheobase.neurons import (
    ALIF,
    CUBALIF,
    GIF,
    GLIF,
    IF,
    ILIF,
    IMLIF,
    KLIF,
    LIF,
    LSGLIF,
    LTMD,
    PLIF,
    STBIF,
    DietLIF,
    HodgkinHuxley,
    ImbalancedSignedIF,
    Izhikevich,
    MaskedPSN,
    MultiThreshold,
    Neuron,
    PhysicalLIF,
    SignedIF,
    SlidingPSN,
    TernaryIF,
    expand,
    neuron_factory,
)
from rheobase.neurons.integrators import INTEGRATORS
from rheobase.ops.scan import use_backend

# Compiles many kernels.
pytestmark = pytest.mark.long


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Each of these, with its novelty switched off, is a plain LIF of the same decay.
def _glif_of_lif() -> GLIF:
    neuron = GLIF(T=9, channels=3, tau=0.5, v_threshold=0.5).double()
    # alpha = 1: exponential leak; beta = 0: input as it is; gamma = 1: hard reset.
    for gate, value in (("alpha", 40.0), ("beta", -40.0), ("gamma", 40.0)):
        nn.init.constant_(getattr(neuron, gate), value)
    return neuron


def _im_lif_of_lif() -> IMLIF:
    neuron = IMLIF(T=9, decay_input=False, v_threshold=0.5, strict=True).double()
    nn.init.constant_(neuron.score[2].bias, -1e4)
    return neuron


CASES = {
    "glif": (_glif_of_lif, {}),
    "im_lif": (_im_lif_of_lif, {}),
    "cuba": (lambda: CUBALIF(2.0, current_decay=0.0, v_threshold=0.5, strict=True), {}),
    "ltmd": (lambda: LTMD(0.5, tau=2.0).double(), {}),
    "alif": (
        lambda: ALIF(1.0 / math.log(2.0), beta=0.0, v_threshold=0.5, strict=True),
        {"v_reset": None},
    ),
    "diet": (lambda: DietLIF(leak=0.5, v_threshold=0.5).double(), {"v_reset": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_special_case_is_the_plain_lif(name: str) -> None:
    make, options = CASES[name]
    x = _draw(9, 2, 3, 5)
    lif = LIF(2.0, decay_input=False, v_threshold=0.5, strict=True, **options)
    expected = lif(x)
    assert 0.1 < expected.mean() < 0.9
    assert torch.equal(make()(x), expected)


@pytest.mark.parametrize("v_reset", [-0.25, 0.0, None])
def test_current_and_membrane_of_cuba_decay_towards_0(v_reset: float | None) -> None:
    x = _draw(9, 2, 30)
    neuron = CUBALIF(4.0, current_decay=0.5, v_threshold=0.5, v_reset=v_reset)
    spikes, membrane = neuron(x, tap="v")
    assert 0.1 < spikes.mean() < 0.9
    current, u = torch.zeros_like(x[0]), torch.full_like(x[0], v_reset or 0.0)
    for x_t, s_t, u_t in zip(x, spikes, membrane, strict=True):
        current = 0.5 * current + x_t
        h = 0.75 * u + current
        assert torch.equal(s_t, (h >= 0.5).double())
        u = h - 0.5 * s_t if v_reset is None else torch.where(s_t > 0.0, v_reset, h)
        assert torch.equal(u_t, u)


def test_klif_of_slope_one_is_a_lif_that_never_goes_below_zero() -> None:
    x = _draw(9, 2, 30).abs()
    assert torch.equal(KLIF().double()(x), LIF()(x))
    _, h = KLIF().double()(_draw(9, 2, 30), tap="h")
    assert h.min() == 0.0


def test_integers_expand_to_binary_steps_of_the_same_network() -> None:
    """Integer weights, so that sums are exact in any order: the two networks are equal."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randint(-3, 4, (6, 6), generator=generator).double() for _ in range(2)]
    neurons = [ILIF(levels=4, tau=2.0) for _ in range(3)]
    x = 3.0 * _draw(5, 4, 6)
    integer, binary = neurons[0](x), expand(neurons[0](x), 4)
    assert set(integer.unique().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    for weight, neuron in zip(weights, neurons[1:], strict=True):
        integer = neuron(integer @ weight)
        assert set(binary.unique().tolist()) == {0.0, 1.0}
        # A virtual neuron charges with all virtual steps of its input, then fires in its own.
        charge = (binary @ weight).unflatten(0, (5, 4)).sum(1)
        binary = expand(neuron(charge), 4)
        assert torch.equal(binary.unflatten(0, (5, 4)).sum(1), integer)
        assert integer.any()


def test_expand_refuses_what_is_no_count() -> None:
    for value in (-1.0, 5.0, 0.5):
        with pytest.raises(ValueError, match="integers from 0 to levels=4"):
            expand(torch.full((2, 1), value), levels=4)


def test_generalised_if_is_many_steps_of_if() -> None:
    levels, x = 4, 3.0 * _draw(6, 50)
    slow = torch.zeros(6 * levels, 50, dtype=torch.float64)
    slow[::levels] = x
    virtual = IF(v_reset=None)(slow).unflatten(0, (6, levels)).sum(1)
    assert torch.equal(GIF(levels)(x), virtual)
    assert virtual.max() == levels


def test_ternary_is_odd() -> None:
    x = 1.5 * _draw(9, 40)
    for v_reset in (0.0, None):
        neuron = TernaryIF(v_reset=v_reset)
        assert torch.equal(neuron(-x), -neuron(x))
        assert set(neuron(x).unique().tolist()) == {-1.0, 0.0, 1.0}


def test_imbalanced_rate_is_a_leaky_relu() -> None:
    x = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    rate = ImbalancedSignedIF(slope=0.1)(x.expand(4000, 1, 19)).mean(0).squeeze(0)
    torch.testing.assert_close(rate, nn.functional.leaky_relu(x, 0.1), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("neuron", "lowest", "highest"),
    [(SignedIF(), 0, 10**6), (STBIF(highest=5), 0, 5), (STBIF(lowest=-3, highest=4), -3, 4)],
)
def test_signed_spikes_add_up_to_the_quantised_sum(
    neuron: Neuron, lowest: int, highest: int
) -> None:
    x = _draw(12, 200)
    drained = torch.cat([x, torch.zeros(24, 200, dtype=torch.float64)])
    expected = (x.sum(0) + 0.5).floor().clamp(lowest, highest)
    total = neuron(drained).sum(0)
    assert expected.unique().numel() > 4
    # SignedIF takes a spike back only from -1e-3 on.
    assert (total != expected).double().mean() <= (0.02 if isinstance(neuron, SignedIF) else 0.0)


def test_sliding_psn_is_masked_psn_of_one_filter() -> None:
    sliding = SlidingPSN(k=3).double()
    masked = MaskedPSN(T=7, k=3, masking=1.0).double()
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    masked.weight.data = sliding.weight.data[(2 - (rows - columns)).clamp(0, 2)]
    x = _draw(7, 2, 40)
    assert torch.equal(masked(x), sliding(x))


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("rk4", 4), ("exponential_euler", None)]
)
def test_integrators_are_of_their_order(method: str, order: int | None) -> None:
    def error(steps: int) -> float:
        state = (torch.ones(1, dtype=torch.float64),)
        for _ in range(steps):
            state = INTEGRATORS[method](lambda s: ((2.0, -3.0),), state, 1.0 / steps)
        exact = 2.0 / 3.0 + math.exp(-3.0) / 3.0
        return abs(state[0].item() - exact)

    if order is None:
        assert error(4) < 1e-14
    else:
        assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.15)


def test_refractory_neurons_wait() -> None:
    spikes = PhysicalLIF(refractory=2.0)(torch.full((400, 1), 1e4)).flatten()
    gaps = spikes.nonzero().flatten().diff()
    assert set(gaps.tolist()) == {20}  # 2 ms in steps of 0.1 ms


@pytest.mark.parametrize("name", ["izhikevich", "adex", "hodgkin_huxley", "clif", "ternary_lif"])
def test_they_train_inside_a_network(name: str) -> None:
    torch.manual_seed(0)
    scale = {"izhikevich": 40.0, "adex": 10.0, "hodgkin_huxley": 4e3}.get(name, 2.0)
    net = nn.Sequential(nn.Linear(5, 8), neuron_factory(name)(), nn.Linear(8, 2))
    x = scale * torch.rand(30, 4, 5)
    net(x).square().mean().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert net[0].weight.grad.abs().max() > 0.0


def test_a_neuron_outside_the_scan_has_no_spec() -> None:
    with pytest.raises(TypeError, match="SlidingPSN does not run on the scan"):
        _ = SlidingPSN(k=2).spec
    assert LIF().spec.charge == "blend"


def test_what_was_learnt_is_held_to_its_domain() -> None:
    x = torch.rand(2, 1, 3)
    for neuron, name in ((DietLIF(), "v_threshold"), (DietLIF(), "leak"), (KLIF(), "k")):
        getattr(neuron, name).data.fill_(-0.1)
        with pytest.raises(ValueError, match=r"of -0\.1, which must stay above 0"):
            neuron(x)
    diet = DietLIF()
    diet.leak.data.fill_(1.2)
    assert diet(x).isfinite().all()
    ltmd = LTMD()
    ltmd.w.data.fill_(-1.0)
    with pytest.raises(ValueError, match=r"LTMD learnt a threshold of -0\.76"):
        ltmd(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [None, 3])
def test_the_kernels_of_glif_equal_its_graph(channels: int | None, dtype: torch.dtype) -> None:
    """What an eager call on the CPU runs, and what a tracer sees."""
    torch.manual_seed(0)
    neuron, x = GLIF(4, channels).to(dtype), torch.rand(4, 2, 3, 5, dtype=dtype)
    learnt = neuron.learnt(x)
    assert learnt is not None and len(learnt.names) == 6
    found, made_of = learnt.make(learnt.parameters)
    expected = [learnt.followed()[name] for name in learnt.names]
    weights = [torch.rand_like(value) for value in expected]
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.view_as(plain), plain, rtol=1e-6, atol=1e-7)
    gradients = torch.autograd.grad(expected, learnt.parameters, weights)
    for ours, plain in zip(learnt.back(made_of, weights), gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)


def test_parts_of_what_glif_learns_may_be_frozen() -> None:
    neuron, x = GLIF(4, 3).double(), torch.rand(4, 2, 3, 5, dtype=torch.float64)
    neuron.tau.requires_grad_(False)
    learnt = [p for p in neuron.parameters() if p.requires_grad]
    found = torch.autograd.grad(neuron(x).sum(), learnt)
    with use_backend("reference"):
        expected = torch.autograd.grad(neuron(x).sum(), learnt)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(
    ("neuron", "name"),
    [(PLIF(), "w"), (LSGLIF(), "w"), (KLIF(), "k"), (GLIF(2), "tau"), (GLIF(2), "conductance")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_was_learnt_is_a_number(neuron: Neuron, name: str) -> None:
    getattr(neuron, name).data.fill_(math.nan)
    with pytest.raises(ValueError, match="of nan, which must stay above 0"):
        neuron(torch.rand(2, 1, 3))


@pytest.mark.parametrize("neuron", [DietLIF(channels=3), GLIF(T=4, channels=3)], ids=repr)
def test_another_number_of_channels_is_refused(neuron: Neuron) -> None:
    with pytest.raises(ValueError, match="has 3 channels, input is"):
        neuron(torch.rand(4, 2, 5, 6))


def test_names_of_cells() -> None:
    assert list(Izhikevich.PRESETS) == ["RS", "IB", "CH", "FS", "TC", "RZ", "LTS"]
    assert HodgkinHuxley().initial()[1] == pytest.approx(0.0529325, abs=1e-7)
    assert MultiThreshold(levels=2)(torch.full((1, 1), 100.0)).item() == 2.0
