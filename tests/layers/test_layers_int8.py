"""Layers with 8-bit weights, and spikes that travel to them as bytes."""

import copy

import pytest
import torch
from torch import Tensor, nn

import rheobase
import rheobase.layers.optimize as optimize
from rheobase.layers import Int8Conv2d, Int8Linear, over_time
from rheobase.layers.int8 import SpikeAvgPool2d, spike_pool
from rheobase.layers.sequential import TimeSequential
from rheobase.layers.spike_bytes import send_bytes
from rheobase.measure import count_operations, firing_rates
from rheobase.neurons import LIF
from rheobase.ops import int8

T, N = 4, 2


def _spikes(*shape: int) -> Tensor:
    return (torch.rand(*shape) < 0.15).float()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_layers_are_those_of_rounded_weights(sparse: bool, scale: float) -> None:
    conv, linear = nn.Conv2d(40, 24, 3, padding=1), nn.Linear(90, 30)
    for layer, x in ((conv, _spikes(2, 40, 7, 7)), (linear, _spikes(3, 5, 90))):
        made = (Int8Conv2d if layer is conv else Int8Linear)(layer, scale, sparse)
        rounded = copy.deepcopy(layer)
        values, unit = int8.quantised(layer.weight)
        rounded.weight.data = values * unit.view(-1, *[1] * (layer.weight.dim() - 1))
        for given in (scale * x, x.to(torch.uint8)):
            torch.testing.assert_close(made(given), rounded(scale * x), rtol=1e-5, atol=1e-5)
        # Where the kernels are not: the same in floats.
        exact = copy.deepcopy(made).double()(scale * x.double())
        torch.testing.assert_close(made(x.to(torch.uint8)), exact.float(), rtol=1e-5, atol=1e-5)


def test_outputs_are_float32_whatever_the_default_dtype() -> None:
    made, x = Int8Conv2d(nn.Conv2d(40, 24, 3, bias=False), sparse=True), _spikes(2, 40, 7, 7)
    expected = made(x)
    torch.set_default_dtype(torch.float64)
    try:
        found = made(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_copies_and_weights_travel() -> None:
    layer, x = Int8Conv2d(nn.Conv2d(8, 8, 3)), _spikes(1, 8, 5, 5)
    y = layer(x)
    other = Int8Conv2d(nn.Conv2d(8, 8, 3))
    other(x)
    other.load_state_dict(layer.state_dict())  # what was laid out for the old weights is not used
    assert torch.equal(other(x), y) and torch.equal(copy.deepcopy(layer)(x), y)
    assert layer.weight.dtype == torch.int8


def test_refusals() -> None:
    with pytest.raises(ValueError, match="zero padding given as numbers, not 'same'"):
        Int8Conv2d(nn.Conv2d(4, 4, 3, padding="same"))
    with pytest.raises(ValueError, match="groups=2"):
        Int8Conv2d(nn.Conv2d(4, 4, 3, groups=2), sparse=True)
    with pytest.raises(TypeError, match="8-bit weights are for float32"):
        rheobase.optimize(nn.Linear(3, 3), torch.rand(2, 3).double(), dtypes=(torch.int8,))


def _net() -> TimeSequential:
    torch.manual_seed(0)
    net = TimeSequential(
        nn.Conv2d(3, 32, 3, padding=1), LIF(v_threshold=0.3),
        nn.Conv2d(32, 32, 3, padding=1), LIF(v_threshold=0.1), nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), LIF(v_threshold=0.05), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 20), LIF(v_threshold=0.1), nn.Linear(20, 4),
    )  # fmt: skip
    return net.eval()


def _int8_net(monkeypatch: pytest.MonkeyPatch, net: nn.Module, x: Tensor) -> optimize.Optimized:
    """Whatever the clock says, with 8-bit weights wherever they can be."""
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x, dtypes=(torch.int8,))
    monkeypatch.undo()
    return fast


def test_network_of_bytes_gives_the_spikes_of_the_one_of_floats(monkeypatch) -> None:
    net, x = _net(), torch.rand(T, N, 3, 8, 8)
    fast = _int8_net(monkeypatch, net, x)
    kinds = [type(module).__name__ for module in fast.net]
    assert kinds.count("Int8Conv2d") == 2 and kinds.count("Int8Linear") == 2
    assert [m.to_bytes for m in fast.modules() if isinstance(m, LIF)] == [True] * 4
    assert fast.net[4](torch.ones(1, 1, 2, 2, dtype=torch.uint8)).item() == 4
    assert fast.net[5].step == 0.25

    in_floats = copy.deepcopy(fast.net).double()
    for module in in_floats.modules():
        if isinstance(module, LIF):
            module.to_bytes = False
    rates, expected = firing_rates(fast.net, x), firing_rates(in_floats, x.double())
    assert rates == pytest.approx(expected, abs=1e-9) and min(rates.values()) > 0.02
    torch.testing.assert_close(fast(x), in_floats(x.double()).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast(x).mean(0), net(x).mean(0), rtol=0.2, atol=0.1)
    assert count_operations(fast, x).macs == count_operations(net, x).macs


def test_layers_with_hooks_keep_them(monkeypatch) -> None:
    torch.manual_seed(0)
    net = TimeSequential(nn.Conv2d(3, 16, 3), LIF(), nn.Conv2d(16, 8, 3)).eval()
    net[2].register_forward_hook(lambda module, inputs, output: 2.0 * output)
    x = 3.0 * torch.rand(T, N, 3, 8, 8)
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x, dtypes=(torch.int8,))
    torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)


def test_neurons_with_hooks_send_floats(monkeypatch) -> None:
    torch.manual_seed(0)
    net = TimeSequential(nn.Conv2d(3, 16, 3), LIF(), nn.Conv2d(16, 8, 3)).eval()
    rates: list[Tensor] = []
    net[1].register_forward_hook(lambda module, inputs, output: rates.append(output.mean()))
    x = 3.0 * torch.rand(T, N, 3, 8, 8)
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x, dtypes=(torch.int8,))
    net(x)
    fast(x)
    assert torch.equal(rates[-1], rates[-2])


def test_it_streams_and_exports(monkeypatch) -> None:
    net, x = _net(), torch.rand(T, N, 3, 8, 8)
    fast = _int8_net(monkeypatch, net, x)
    with rheobase.streaming(fast):
        pieces = torch.cat([fast(x[:1]), fast(x[1:])])
    assert torch.equal(pieces, fast(x))
    exported = torch.export.export(fast, (x,)).module()
    torch.testing.assert_close(exported(x), fast(x), rtol=1e-5, atol=1e-5)


class _Shared(nn.Module):
    """Spikes that a layer and something else read."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.neuron, self.layer, self.how = LIF(), Int8Linear(nn.Linear(6, 6)), how

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        spikes = over_time(x, self.neuron)
        y = over_time(spikes.flatten(2).unflatten(2, (2, 3)).flatten(2), self.layer)
        return {
            "only": lambda: y,
            "sum": lambda: y + spikes,
            "out": lambda: (y, spikes),
            "array": lambda: y - float(-spikes.numpy().min()),
        }[self.how]()


@pytest.mark.parametrize(("how", "senders"), [("only", 1), ("sum", 0), ("out", 0), ("array", 0)])
def test_spikes_that_others_read_stay_floats(how: str, senders: int) -> None:
    net = _Shared(how)
    assert send_bytes(net, torch.rand(T, N, 6)) == senders
    assert net.neuron.to_bytes is bool(senders)


@pytest.mark.parametrize(
    ("pool", "fits"),
    [
        (nn.MaxPool2d(2), True),
        (nn.AvgPool2d((2, 3)), True),
        (nn.MaxPool2d(3, 2), False),
        (nn.AvgPool2d(2, padding=1), False),
        (nn.AvgPool2d(2, ceil_mode=True), False),
        (nn.Flatten(), False),
    ],
)
def test_pooling_of_bytes(pool: nn.Module, fits: bool) -> None:
    kind = spike_pool(pool)
    assert (kind is not None) is fits
    if kind is None:
        return
    x = (torch.rand(2, 40, 9, 7) < 0.3).to(torch.uint8).to(memory_format=torch.channels_last)
    expected = pool(x.float())
    pool.__class__ = kind
    assert torch.equal(pool(x.float()), expected)
    assert torch.equal(pool(x) / getattr(pool, "window", 1), expected)


def test_sums_that_do_not_fit_a_byte_stay_floats() -> None:
    net = nn.Sequential(LIF(), nn.Flatten(0, 1), SpikeAvgPool2d(16), Int8Conv2d(nn.Conv2d(3, 4, 1)))
    assert send_bytes(net, torch.rand(T, N, 3, 16, 16)) == 0
