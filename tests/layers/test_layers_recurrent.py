"""Recurrent layers: the fused whole-sequence gradient is that of autograd through the steps."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm

import rheobase
from rheobase.layers import Recurrent, over_time
from rheobase.layers.recurrent import _cell
from rheobase.measure import count_operations, firing_rates
from rheobase.neurons import ALIF, CLIF, CUBALIF, IF, KLIF, LIF, PLIF, Neuron, StepNeuron, spike
from rheobase.ops.recurrent import analytic, cpu, recurrent_reference
from rheobase.ops.recurrent import op as recurrent_op
from rheobase.ops.recurrent.cell import first_state
from rheobase.surrogate import Sigmoid

T, N, F_ = 6, 5, 150  # more features than a block of the kernels, more samples than chunks of one

NEURONS: dict[str, Callable[[], Neuron]] = {
    "cuba": lambda: CUBALIF(v_reset=None, detach_reset=True),
    "plif": lambda: PLIF(tau=3.0, decay_input=False, channels=F_),
    "alif": lambda: ALIF(tau=5.0, tau_adaptation=4.0, beta=0.5, v_threshold=0.8),
}
MORE: dict[str, Callable[[], Neuron]] = {
    "if": lambda: IF(strict=True, surrogate=Sigmoid(4.0)),
    "lif": lambda: LIF(tau=1.7, v_reset=-0.2),
    "klif": lambda: KLIF(),
    "alif_hard": lambda: ALIF(v_reset=0.0),
}


def _layer(neuron: Neuron) -> Recurrent:
    torch.manual_seed(0)
    layer = Recurrent(F_, neuron).double()
    nn.init.normal_(layer.feedback.weight, std=2.0 / math.sqrt(F_))
    return layer


def _input() -> Tensor:
    x = 1.5 * torch.randn(T, N, F_, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.requires_grad_()


def _gradients(spikes: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    g = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return list(torch.autograd.grad(spikes, wanted, g))


def _check_against_autograd(layer: Recurrent) -> None:
    x = _input()
    wanted = [x, *layer.parameters()]
    cell, coefficients = _cell(layer.neuron, x)
    state = first_state(x.detach(), layer.neuron.rest)
    expected, _ = recurrent_reference(x, layer.feedback.weight, state, cell, coefficients)
    spikes = layer(x)
    assert 0.03 < expected.mean() < 0.5
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(
        _gradients(spikes, wanted), _gradients(expected, wanted), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("backend", [cpu, analytic], ids=["cpu", "analytic"])
@pytest.mark.parametrize("name", NEURONS)
def test_gradients_are_those_of_autograd(name, backend, monkeypatch):
    monkeypatch.setattr(recurrent_op, "_backend", lambda x: backend)
    _check_against_autograd(_layer(NEURONS[name]()))


@pytest.mark.long
@pytest.mark.parametrize("backend", [cpu, analytic], ids=["cpu", "analytic"])
@pytest.mark.parametrize("name", MORE)
def test_gradients_are_those_of_autograd_for_more_neurons(name, backend, monkeypatch):
    monkeypatch.setattr(recurrent_op, "_backend", lambda x: backend)
    _check_against_autograd(_layer(MORE[name]()))


def test_alif_is_its_own_step_with_the_feedback_added():
    layer, x = _layer(NEURONS["alif"]()), _input()
    neuron = layer.neuron
    assert isinstance(neuron, StepNeuron)
    state, s, spikes = neuron.start(x[0]), torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        s, _, state = neuron.step(x_t + layer.feedback(s), state)
        spikes.append(s)
    expected, wanted = torch.stack(spikes), [x, layer.feedback.weight]
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(_gradients(layer(x), wanted), _gradients(expected, wanted))


def test_cuba_lif_is_the_equation():
    layer, x = _layer(NEURONS["cuba"]()), _input()
    neuron = layer.neuron
    assert isinstance(neuron, CUBALIF)
    i = u = s = torch.zeros_like(x[0])
    spikes = []
    for x_t in x.unbind(0):
        i = neuron.current_decay * i + x_t + F.linear(s, layer.feedback.weight)
        h = (1.0 - 1.0 / neuron.tau) * u + i
        s = spike(h - neuron.v_threshold, neuron.surrogate)
        u = h - s.detach() * neuron.v_threshold
        spikes.append(s)
    expected, wanted = torch.stack(spikes), [x, layer.feedback.weight]
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(_gradients(layer(x), wanted), _gradients(expected, wanted))


@pytest.mark.parametrize("name", NEURONS)
def test_pieces_of_a_stream_are_one_call(name):
    layer, x = _layer(NEURONS[name]()), _input().detach()
    with rheobase.streaming(layer):
        pieces = [layer(x[:1]), layer(x[1:4]), layer(x[4:])]
    assert torch.equal(torch.cat(pieces), layer(x))


def test_compiles_and_exports_whole_and_transforms():
    layer, x = _layer(NEURONS["plif"]()), _input()
    net = nn.Sequential(nn.Linear(F_, F_).double(), layer)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), net(x))
    wanted = [x, *net.parameters()]
    torch.testing.assert_close(_gradients(compiled(x), wanted), _gradients(net(x), wanted))
    exported = torch.export.export(net, (x.detach(),)).module()
    assert torch.equal(exported(x.detach()), net(x))
    by_transform = torch.func.grad(lambda x: layer(x).sum())(x.detach())
    torch.testing.assert_close(by_transform, torch.autograd.grad(layer(x).sum(), x)[0])


def test_bfloat16_computes_in_float32():
    layer = Recurrent(F_, NEURONS["cuba"]())
    x = _input().detach().to(torch.bfloat16)
    spikes = layer(x)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), layer(x.float()))


def test_counters_see_the_feedback():
    layer, x = _layer(NEURONS["cuba"]()).float(), _input().detach().float()
    net = nn.Sequential(nn.Linear(F_, F_), layer)
    assert firing_rates(net, x)["1"] == pytest.approx(net(x).mean().item())
    report = count_operations(net, x)
    feedback = [count for count in report.layers if count.name.startswith("1")]
    assert sum(count.macs * count.steps for count in feedback) == T * F_ * F_


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of weight_norm
@pytest.mark.parametrize(
    "make",
    [
        lambda feedback: prune.random_unstructured(feedback, "weight", 0.5),
        weight_norm,
        parametrizations.weight_norm,
    ],
)
def test_a_pruned_or_normalised_feedback_trains(make):
    layer, x = _layer(NEURONS["plif"]()), _input().detach()
    make(layer.feedback)
    inside = next(layer.feedback.parameters())
    for _ in range(2):
        before = layer(x)
        before.sum().backward()
        assert inside.grad.any()
        with torch.no_grad():
            inside.mul_(-1.5)
    with torch.no_grad():
        spikes = layer(x)
        layer.feedback(x[0])  # a call of it makes its weight anew
        plain = _layer(NEURONS["plif"]())
        plain.feedback.weight.copy_(layer.feedback.weight)
        assert torch.equal(spikes, plain(x)) and not torch.equal(spikes, before)


def test_refuses_what_it_cannot_compute():
    with pytest.raises(TypeError, match="the step of CLIF is another"):
        Recurrent(4, CLIF())
    with pytest.raises(ValueError, match="made for 4 channels"):
        Recurrent(4, LIF())(torch.rand(3, 2, 5))
    with pytest.raises(ValueError, match=r"takes \[T, N, F\]"):
        Recurrent(4, LIF())(torch.rand(3, 2, 4, 1))
    with pytest.raises(TypeError, match="floating point"):
        Recurrent(4, LIF())(torch.ones(3, 2, 4, dtype=torch.int64))


def test_a_recurrent_network_learns_what_needs_memory():
    """Which of two inputs came first: only a state that the feedback shapes can tell."""
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Linear(2, 24), Recurrent(24, ALIF(tau=8.0)), nn.Linear(24, 2)])
    order = torch.randint(2, (64,))
    x = torch.zeros(12, 64, 2)
    x[2, torch.arange(64), order] = 2.0
    x[6, torch.arange(64), 1 - order] = 2.0
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(60):
        logits = over_time(x, *net)[8:].mean(0)
        loss = F.cross_entropy(logits, order)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == order).float().mean() > 0.95
