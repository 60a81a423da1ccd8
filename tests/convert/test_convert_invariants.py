"""Where conversion is exact, it is exact: for any input, threshold and size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rheobase.convert import NeuronRule, convert
from rheobase.convert.bias import BiasOverTime
from rheobase.convert.few_spikes import FewSpikeNeuron, binary_code, fit_code
from rheobase.layers import QCFS, Accumulated, QuantReLU, RateNorm
from rheobase.measure import firing_rates
from rheobase.neurons import STBIF, OffsetRateIF, RateIF, SignedIF

SEEDS = st.integers(0, 10**6)


def qcfs_net(levels: int, seed: int, layers: int = 2) -> tuple[nn.Module, Tensor]:
    """A network of random widths, and inputs."""
    torch.manual_seed(seed)
    widths = torch.randint(3, 13, (layers + 1,)).tolist()
    blocks = []
    for number in range(layers):
        linear = nn.Linear(widths[number], widths[number + 1])
        blocks += [linear, QCFS(levels, float(torch.rand(()) + 0.5))]
    net = nn.Sequential(*blocks, nn.Linear(widths[-1], 3)).double().eval()
    return net, torch.randn(16, widths[0], dtype=torch.float64)


@settings(deadline=None, max_examples=8)
@given(SEEDS, st.sampled_from([2, 4, 8]))
def test_a_group_of_as_many_members_as_levels_is_the_ann_at_one_step(seed, levels):
    net, x = qcfs_net(levels, seed, layers=3)
    snn = convert(net, x, recipe="group_neuron", T=1, neuron=NeuronRule(start=0.5, members=levels))
    with torch.no_grad():
        torch.testing.assert_close(snn(x)[0], net(x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=8)
@given(SEEDS, st.sampled_from([2, 4, 8]))
def test_a_first_layer_is_its_quantised_activation_at_as_many_steps_as_levels(seed, levels):
    net, x = qcfs_net(levels, seed, layers=1)
    for recipe in ("qcfs", "fast_snn", "potential_init"):
        snn = convert(net, x, recipe=recipe, T=levels)
        with torch.no_grad():
            torch.testing.assert_close(snn.mean_output(x), net(x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=8)
@given(SEEDS, st.sampled_from([2, 4, 8]))
def test_offsets_of_as_many_steps_as_levels_make_the_ann(seed, levels):
    net, x = qcfs_net(levels, seed, layers=3)
    rule = NeuronRule("offset", start=0.5, probe=levels)
    with torch.no_grad():
        snn, ann = convert(net, x, recipe="cos", T=levels, neuron=rule).mean_output(x), net(x)
    # One round of offsets leaves a unit in many off by a spike.
    assert (snn - ann).abs().mean() <= 2e-3 * ann.abs().mean()


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 8))
def test_the_offset_makes_uneven_spikes_even(seed, steps):
    torch.manual_seed(seed)
    # Spikes in any order whose mean the neuron should quantise, at most one spike off.
    x = torch.randint(0, 2, (steps, 64)).double() - 0.4
    expected = (x.sum(0) + 0.5).floor().clamp(0, steps)
    plain = RateIF(torch.ones((), dtype=torch.float64), start=torch.full((), 0.5).double())
    before = (plain(x).detach().sum(0) - expected).abs().sum()
    after = (OffsetRateIF(probe=steps)(x).sum(0) - expected).abs().sum()
    assert after <= before


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 16), st.booleans())
def test_st_bif_after_its_drain_is_the_quantiser(seed, levels, symmetric):
    torch.manual_seed(seed)
    low, high = (-levels, levels) if symmetric else (0, levels)
    x = torch.randn(8, 50, dtype=torch.float64)
    drain = torch.zeros(4 * levels + 32, 50, dtype=torch.float64)
    spikes = STBIF(0.25, lowest=low, highest=high)(torch.cat([x, drain]))
    expected = (x.sum(0) / 0.25 + 0.5).floor().clamp(low, high)
    assert torch.equal(spikes.sum(0), expected)


COMPENSATED: dict[str, tuple[Callable[..., Tensor], int]] = {
    "gelu": (nn.functional.gelu, 1),
    "softmax": (lambda x: x.softmax(-1), 1),
    "layer_norm": (lambda x: nn.functional.layer_norm(x, x.shape[-1:]), 1),
    "matmul": (lambda x, y: x @ y.transpose(-2, -1), 2),
}


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.sampled_from(sorted(COMPENSATED)), st.integers(1, 9), st.booleans())
def test_expectation_compensation_is_the_function_of_the_mean(seed, name, steps, sums):
    torch.manual_seed(seed)
    function, operands = COMPENSATED[name]
    shape = (steps, *torch.randint(1, 6, (3,)).tolist())
    given = [torch.randn(shape, dtype=torch.float64) for _ in range(operands)]
    out = Accumulated(function, "sum" if sums else "mean")(*given)
    joined = torch.Tensor.sum if sums else torch.Tensor.mean
    expected = function(*(joined(x, 0) for x in given))
    torch.testing.assert_close(joined(out, 0), expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 12))
def test_signed_spikes_take_back_what_came_too_early(seed, steps):
    torch.manual_seed(seed)
    x = torch.randn(steps, 50, dtype=torch.float64)
    spikes = SignedIF(1.0)(x)
    assert bool((spikes.cumsum(0) >= 0.0).all()), "never more is taken back than was sent"


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.integers(-3, 3))
def test_threshold_balancing_is_weight_normalisation(seed, power):
    size = 2.0**power  # a power of two: no rounding decides a spike
    torch.manual_seed(seed)
    net, x = (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(),
        torch.rand(5, 6, dtype=torch.float64),
    )
    balanced = convert(net, x, recipe="threshold_max", T=16, thresholds={"1": size})
    scaled = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    with torch.no_grad():
        for old, new, factor in ((net[0], scaled[0], 1 / size), (net[2], scaled[2], size)):
            new.weight.copy_(old.weight * factor)
            new.bias.copy_(old.bias * (factor if old is net[0] else 1.0))
    normalised = convert(scaled, x, recipe="threshold_max", T=16, thresholds={"1": 1.0})
    with torch.no_grad():
        torch.testing.assert_close(balanced(x), normalised(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_quantised_relu_has_pact_gradients(bits):
    z = torch.tensor([-1.0, 0.3, 0.7, 5.0], dtype=torch.float64, requires_grad=True)
    layer = QuantReLU(bits, 2.0).double()
    y = layer(z)
    y.sum().backward()
    assert z.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    q = y.detach()[1:3] / 2.0
    expected = 1.0 + (q - torch.tensor([0.15, 0.35], dtype=torch.float64)).sum()
    torch.testing.assert_close(layer.threshold.grad.double(), expected)


@pytest.mark.parametrize("when", ["once", "spread"])
def test_a_bias_of_sums_counts_once(when):
    layer = nn.Linear(4, 3).double()
    x = torch.randn(8 * 2, 4, dtype=torch.float64)
    timed = BiasOverTime(layer, when, 8)
    total = timed(x, steps=8).unflatten(0, (8, 2)).sum(0)
    torch.testing.assert_close(total, layer(x.unflatten(0, (8, 2)).sum(0)))


def test_few_spikes_code_a_relu_to_the_last_level_and_others_as_fitted():
    x = torch.linspace(-8.0, 8.0, 500)
    current = torch.cat([x.unsqueeze(0), torch.zeros(9, 500)])
    code = binary_code(16.0, 10)
    relu = FewSpikeNeuron(code, code, code)
    value = (relu(current) * code.unsqueeze(1)).sum(0)
    assert (value - x.relu()).abs().max() <= 16.0 / 2**10 + 1e-6
    fitted = fit_code(nn.functional.silu, 10, iterations=200, restarts=1)
    value = (fitted(current) * fitted.weights.unsqueeze(1)).sum(0)
    assert (value - nn.functional.silu(x)).square().mean() < 0.02


def test_few_spikes_convert_a_network_of_any_activation():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    x = torch.rand(8, 2, 8, 8)
    snn = convert(net, x, recipe="few_spikes", T=12)
    with torch.no_grad():
        torch.testing.assert_close(snn.mean_output(x), net(x), rtol=0.0, atol=2e-3)


def test_first_spikes_convert_a_network_with_one_spike_a_neuron():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(32, 6)
    snn = convert(net.eval(), x, recipe="ttfs", T=256)
    with torch.no_grad():
        torch.testing.assert_close(snn.mean_output(x), net(x), rtol=0.0, atol=5e-3)
    assert all(rate <= 1.0 / 256 for rate in firing_rates(snn, x).values())


def test_sums_over_steps_go_to_the_ann_too():
    torch.manual_seed(0)
    # A bias that is spread can come after the spikes it should have kept back: none here.
    net = nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.rand(32, 6)
    snn = convert(net, x, recipe="tandem", T=512, neuron=NeuronRule(start=0.5))
    with torch.no_grad():
        torch.testing.assert_close(snn.mean_output(x), net(x), rtol=0.0, atol=0.03)


def test_rate_norm_sends_rates():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 16), RateNorm(), nn.Linear(16, 8), RateNorm(absolute=True), nn.Linear(8, 3)
    ).eval()
    net[1].running_maximum.fill_(0.7)
    x = torch.rand(32, 6)
    snn = convert(net, x, recipe="rnl", T=512, neuron=NeuronRule(start=0.5))
    with torch.no_grad():
        torch.testing.assert_close(snn.mean_output(x), net(x), rtol=0.0, atol=0.02)
