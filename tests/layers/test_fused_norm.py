"""Batch norm and neuron in one pass give what the two give one after the other."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import rheobase
from rheobase.layers import ThresholdDependentBatchNorm2d, over_time, repeat
from rheobase.measure import firing_rates
from rheobase.neurons import CUBALIF, LIF, PLIF, record_membranes
from rheobase.ops.scan import use_backend
from rheobase.surrogate import Sigmoid

T, N, C = 4, 3, 6


class Unit(nn.Module):
    def __init__(self, norm: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        # No bias: before a batch norm its gradient is 0, so what is computed is all rounding.
        self.conv = nn.Conv2d(2, C, 3, padding=1, bias=False)
        self.norm, self.neuron = norm, neuron

    def forward(self, x: Tensor) -> Tensor:
        return over_time(x, self.conv, self.norm, self.neuron)


def _watch(net: Unit) -> None:
    """A hook on the norm: somebody wants its output, so it must be called on its own."""
    net.norm.register_forward_hook(lambda *_: None)


def _run(net: Unit, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = net(leaf)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (y * weights.to(y.dtype)).sum().backward()
    gradients = [leaf.grad, *(p.grad for p in net.parameters())]
    return [y.detach(), *(g for g in gradients if g is not None), *net.norm.buffers()]


NORMS: list[Callable[[], nn.Module]] = [
    lambda: nn.BatchNorm2d(C),
    lambda: nn.BatchNorm2d(C, momentum=None),
    lambda: nn.BatchNorm2d(C, track_running_stats=False),
    lambda: ThresholdDependentBatchNorm2d(C, v_threshold=0.5),
]


@pytest.mark.parametrize("make_norm", NORMS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("channels_last", "dtype", "tolerance"),
    [(True, torch.float64, 1e-12), (False, torch.float64, 1e-12), (True, torch.float32, 2e-5)],
    ids=["last-f64", "first-f64", "last-f32"],
)
def test_one_pass_equals_two(
    make_norm: Callable[[], nn.Module],
    training: bool,
    channels_last: bool,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    neuron = PLIF(surrogate=Sigmoid(4.0)) if training else LIF(tau=1.7, v_reset=None)
    net = Unit(make_norm(), neuron).to(dtype).train(training)
    with torch.no_grad():
        for name, parameter in net.norm.named_parameters():
            parameter.uniform_(1.0, 2.0) if name == "weight" else parameter.normal_()
    x = (torch.randn(T, N, 2, 9, 8) + 3.0).to(dtype)
    if channels_last:
        folded = x.flatten(0, 1).to(memory_format=torch.channels_last)
        x = folded.unflatten(0, (T, N))
    apart = copy.deepcopy(net)
    _watch(apart)
    one, two = _run(net, x), _run(apart, x)
    assert torch.equal(one[0], two[0])
    assert 0 < one[0].mean() < 1
    for a, b in zip(one[1:], two[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
def test_a_synapse_between_norm_and_charge(training: bool, repeated: bool) -> None:
    torch.manual_seed(0)
    one = Unit(nn.BatchNorm2d(C), CUBALIF()).double().train(training)
    nn.init.uniform_(one.norm.weight, 1.0, 3.0)
    apart = copy.deepcopy(one)
    _watch(apart)
    x = torch.randn(T, N, 2, 9, 8).double()
    results = []
    for net in (one, apart):
        leaf = (x[0] if repeated else x).clone().requires_grad_()
        y = net(repeat(leaf, T) if repeated else leaf)
        assert 0 < y.mean() < 1
        (y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
        gradients = [leaf.grad, *(p.grad for p in net.parameters())]
        results.append([y, *gradients, *net.norm.buffers()])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [None, 8])
def test_sums_over_many_blocks(channels: int | None) -> None:
    """Channels last and 8 of them: vectors are read once, and sums run on to the chunk's end."""
    torch.manual_seed(0)
    neuron = PLIF(surrogate=Sigmoid(4.0), channels=channels)
    one = Unit(nn.BatchNorm2d(8), neuron).double()
    one.conv = nn.Conv2d(2, 8, 3, padding=1, bias=False).double()
    two = copy.deepcopy(one)
    _watch(two)
    # 69120 neurons: eight chunks of two blocks, and a piece.
    x = torch.randn(6, 2, 40, 72).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    results = []
    for net, backend in ((one, "cpu"), (two, "reference")):
        with use_backend(backend):
            results.append(_run(net, x.double()))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * float(b.abs().max()))


@pytest.mark.parametrize("make_norm", NORMS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [4, 6])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["f64", "f32"]
)
def test_one_image_for_all_steps(
    make_norm: Callable[[], nn.Module],
    training: bool,
    steps: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """The neuron's way back sums over time what was computed once; as if T copies had been seen."""
    torch.manual_seed(0)
    norm = make_norm()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    once = Unit(norm, LIF(surrogate=Sigmoid(4.0))).to(dtype).train(training)
    copied, apart = copy.deepcopy(once), copy.deepcopy(once)
    _watch(apart)
    image = torch.randn(N, 2, 8, 8, dtype=dtype)
    results = []
    for net, view in ((once, True), (copied, False), (apart, True)):
        leaf = image.clone().requires_grad_()
        sequence = repeat(leaf, steps)
        y = net(sequence if view else sequence.contiguous())
        weights = torch.randn(
            y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        (y * weights.to(dtype)).sum().backward()
        gradients = [leaf.grad, *(p.grad for p in net.parameters())]
        results.append([y.detach(), *(g for g in gradients if g is not None), *net.norm.buffers()])
    torch.testing.assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(results[0], results[2], rtol=tolerance, atol=tolerance)


def test_the_normalised_sequence_is_not_kept() -> None:
    saved: dict[bool, int] = {}
    for watched in (False, True):
        net, x = Unit(nn.BatchNorm2d(C), LIF()), torch.randn(T, N, 2, 8, 8)
        if watched:
            _watch(net)
        storages: dict[int, int] = {}

        def keep(t: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y = net(x)
        saved[watched] = sum(storages.values())
        assert y.requires_grad
    sequence = T * N * C * 64 * 4
    assert saved[True] - saved[False] >= 0.9 * sequence


def test_rates_and_streaming_see_the_neuron() -> None:
    net = Unit(nn.BatchNorm2d(C), LIF())
    net(torch.randn(T, N, 2, 8, 8))
    net.eval()
    x = torch.randn(T, N, 2, 8, 8)
    assert firing_rates(net, x)["neuron"] == pytest.approx(float(net(x).mean()))
    with rheobase.streaming(net):
        pieces = torch.cat([net(x[:1]), net(x[1:])])
    assert torch.equal(pieces, net(x))


def test_recorded_membranes_are_those_of_the_network() -> None:
    net, x = Unit(nn.BatchNorm2d(C), LIF()), torch.randn(T, N, 2, 8, 8)
    expected = net(x)
    with record_membranes(net) as membranes:
        spikes = net(x)
    assert torch.equal(spikes, expected)
    assert membranes[0].h.shape == spikes.shape


def test_who_watches_a_neurons_input_sees_the_normalised_current() -> None:
    torch.manual_seed(0)
    net = Unit(nn.BatchNorm2d(C), LIF()).eval()
    net.norm.running_mean.fill_(3.0)
    x, seen = torch.randn(T, N, 2, 5, 5), []
    expected = net(x)
    net.neuron.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert torch.equal(net(x), expected)
    by_hand = net.norm(net.conv(x.flatten(0, 1))).view(T, N, C, 5, 5)
    assert torch.allclose(seen[0], by_hand, atol=1e-6)


@pytest.mark.parametrize("repeated", [False, True])
def test_hooks_on_a_neuron_see_the_current_and_its_gradient(repeated: bool) -> None:
    torch.manual_seed(0)
    net = Unit(nn.BatchNorm2d(C), LIF()).double()
    image = torch.randn(N, 2, 5, 5, dtype=torch.float64)
    x = repeat(image, T) if repeated else torch.randn(T, N, 2, 5, 5, dtype=torch.float64)
    seen: list[Tensor] = []
    net.neuron.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    net.neuron.register_full_backward_hook(lambda _m, given, _out: seen.append(given[0]))
    net(x).sum().backward()
    current = net.norm(net.conv(x.flatten(0, 1))).view(T, N, C, 5, 5).detach().requires_grad_()
    LIF()(current).sum().backward()
    torch.testing.assert_close(seen[0], current.detach())
    torch.testing.assert_close(seen[1], current.grad)


def test_hooks_on_all_modules_see_the_norm() -> None:
    net, seen = Unit(nn.BatchNorm2d(C), LIF()), []
    handle = register_module_forward_hook(lambda module, _args, _out: seen.append(module))
    try:
        net(torch.randn(T, N, 2, 5, 5))
    finally:
        handle.remove()
    assert net.norm in seen


def test_a_neuron_with_a_forward_of_its_own_gets_the_normalised_current() -> None:
    class Doubled(LIF):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(2.0 * x)

    torch.manual_seed(0)
    net, x = Unit(nn.BatchNorm2d(C), Doubled()).double(), torch.randn(T, N, 2, 5, 5).double()
    current = net.norm(net.conv(x.flatten(0, 1))).view(T, N, C, 5, 5)
    assert torch.equal(net(x), LIF()(2.0 * current))


def test_a_norm_without_shift() -> None:
    torch.manual_seed(0)
    net = Unit(nn.BatchNorm2d(C, bias=False), LIF()).double()
    x = torch.randn(T, N, 2, 5, 5, dtype=torch.float64)
    current = net.norm(net.conv(x.flatten(0, 1))).view(T, N, C, 5, 5)
    assert torch.equal(net(x), LIF()(current))


def test_axes_that_the_norm_does_not_take_are_refused_as_by_pytorch() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        over_time(torch.randn(T, N, C, 5), nn.BatchNorm2d(C), LIF())


def test_a_single_value_per_channel_is_refused_as_by_pytorch() -> None:
    net = Unit(nn.BatchNorm2d(C), LIF())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.randn(1, 1, 2, 1, 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("first", [1.0, 0.0, -1.0])
def test_the_maximum_before_the_norm(training: bool, first: float) -> None:
    torch.manual_seed(0)
    net = Unit(nn.BatchNorm2d(C), LIF(surrogate=Sigmoid(4.0))).double().train(training)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    with torch.no_grad():
        net.norm.weight.uniform_(0.5, 1.0)
        net.norm.weight[0] *= first

    def pooling(net: Unit, x: Tensor) -> Tensor:
        return over_time(x, net.conv, net.norm, pool, net.neuron)

    x = torch.randn(T, N, 2, 9, 8, dtype=torch.float64)
    apart = copy.deepcopy(net)
    _watch(apart)
    results = []
    for unit in (net, apart):
        leaf = x.clone().requires_grad_()
        y = pooling(unit, leaf)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        gradients = [leaf.grad, *(p.grad for p in unit.parameters() if p.grad is not None)]
        results.append([y, *gradients, *unit.norm.buffers()])
    assert torch.equal(results[0][0], results[1][0])
    assert 0 < results[0][0].mean() < 1
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(b.abs().max()))
