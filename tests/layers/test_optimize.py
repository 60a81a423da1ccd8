"""`rheobase.optimize`: what is folded, what is left, and what the result can do."""

import copy

import pytest
import torch
from torch import Tensor, nn

import rheobase
import rheobase.layers.optimize as optimize
from rheobase.layers import (
    BNTT,
    TEBN,
    EventConv2d,
    EventLinear,
    LookupConv2d,
    LookupLinear,
    ThresholdDependentBatchNorm2d,
    over_time,
)
from rheobase.layers.folding import fold_norms
from rheobase.layers.sequential import TimeSequential
from rheobase.neurons import CUBALIF, LIF, PLIF, Neuron
from rheobase.ops import winograd

T, N = 4, 2


class Net(nn.Module):
    """Convolution, norm, neuron twice, and a head."""

    def __init__(self, *norms: nn.Module, shortcut: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(norms)
        self.neurons = nn.ModuleList([LIF(), LIF()])
        self.head = nn.Linear(8 * 36, 5)
        self.shortcut = shortcut
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 1.0, 3.0)
                nn.init.uniform_(norm.bias, 0.3, 1.0)
                norm.running_mean.normal_()  # type: ignore[union-attr]
                norm.running_var.uniform_(0.2, 2.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(x, self.first, self.norms[0], self.neurons[0])
        raw = over_time(x, self.second)
        x = over_time(raw, self.norms[1], self.neurons[1])
        return self.head((x + raw if self.shortcut else x).flatten(2))


def _net(*norms: nn.Module, shortcut: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(*norms, shortcut=shortcut).double().eval()


def _input() -> Tensor:
    return torch.rand(
        T, N, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def _norms(net: nn.Module) -> list[nn.Module]:
    kinds = (nn.BatchNorm2d, BNTT, TEBN, ThresholdDependentBatchNorm2d)
    return [m for m in net.modules() if isinstance(m, kinds)]


def test_batch_norms_go_into_the_weights():
    net, x = _net(nn.BatchNorm2d(8), ThresholdDependentBatchNorm2d(8, 0.5)), _input()
    fast = rheobase.optimize(net, x)
    assert fast.choices[0] == "2 of 2 norms folded into the weights before them"
    assert _norms(fast) == []
    torch.testing.assert_close(fast(x), net(x), rtol=1e-11, atol=1e-11)
    assert _norms(net) and net(x).requires_grad and not fast(x).requires_grad


def test_a_norm_whose_layer_is_read_elsewhere_stays():
    net, x = _net(nn.BatchNorm2d(8), nn.BatchNorm2d(8), shortcut=True), _input()
    fast = rheobase.optimize(net, x)
    assert fast.choices[0] == "1 of 2 norms folded into the weights before them"
    assert len(_norms(fast)) == 1
    torch.testing.assert_close(fast(x), net(x), rtol=1e-11, atol=1e-11)


def test_a_norm_whose_layer_is_read_elsewhere_stays_though_the_example_is_silent():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
            self.dropout = nn.Dropout(0.5)
            self.one, self.other = LIF(), LIF()

        def forward(self, x: Tensor) -> Tensor:
            x = over_time(x, self.conv, self.dropout)
            return self.one(over_time(x, self.norm)) + self.other(x if self.both else 0.0 * x)

    x = 4.0 * torch.randn(T, N, 3, 6, 6, dtype=torch.float64)
    for both in (True, False):
        net = Branches().double().eval()
        net.both = both
        net.norm.running_mean.fill_(0.5)
        fast = rheobase.optimize(net, torch.zeros_like(x))
        assert len(_norms(fast)) == int(both)
        assert torch.equal(fast(x), net(x))


def test_whatever_comes_out():
    net, x = _net(nn.BatchNorm2d(8), nn.BatchNorm2d(8)).float(), _input().float()

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, None]]:
            y = self.net(x)
            return {"class": y.mean(0).argmax(-1), "heads": (y, None)}

    fast = rheobase.optimize(Heads(), x)
    assert fast.choices[0] == "2 of 2 norms folded into the weights before them"
    found = fast(x.double())
    assert found["class"].dtype == torch.int64
    assert found["heads"][0].dtype == torch.float64 and found["heads"][1] is None
    assert torch.equal(found["heads"][0].float(), fast(x)["heads"][0])


def test_norms_of_every_step():
    net, x = _net(TEBN(8, T), BNTT(8, T)), _input()
    with torch.no_grad():
        net.norms[0].p.uniform_(0.5, 1.5)
    expected = net(x)
    assert fold_norms(net, x).startswith("1 of")
    assert net.norms[0].folded and not net.norms[1].folded
    torch.testing.assert_close(net(x), expected, rtol=1e-11, atol=1e-11)


def test_streams_and_exports():
    net, x = _net(nn.BatchNorm2d(8), nn.BatchNorm2d(8)), _input()
    fast = rheobase.optimize(net, x)
    with rheobase.streaming(fast):
        pieces = torch.cat([fast(x[:1]), fast(x[1:])])
    torch.testing.assert_close(pieces, net(x), rtol=1e-11, atol=1e-11)
    exported = torch.export.export(fast, (x,)).module()
    torch.testing.assert_close(exported(x), net(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("neuron", [LIF(v_reset=None), CUBALIF(), LIF(v_threshold=0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_settled_neurons_stream_as_they_did(neuron: Neuron, dtype: torch.dtype) -> None:
    """In any memory order, also from a state that lies in another, and after being copied."""
    settled = copy.deepcopy(neuron)
    settled.settle()
    settled = copy.deepcopy(settled)
    x = 3.0 * torch.rand(6, 2, 4, 5, 5, dtype=dtype)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (6, 2))
    with torch.no_grad(), rheobase.streaming(settled) as stream:
        expected = neuron(x)
        first = [settled(step) for step in x[:3].split(1)]
        kept = stream.state_dict()
        again = [settled(step) for step in last[3:].split(1)]
        stream.load_state_dict(kept)
        assert torch.equal(torch.cat([settled(step) for step in last[3:].split(1)]), expected[3:])
    assert torch.equal(torch.cat([*first, *again]), expected)
    assert 0.05 < expected.mean() < 0.95


def test_settled_neurons_take_loaded_weights() -> None:
    settled, trained, x = PLIF(), PLIF(), 2.0 * torch.rand(3, 2, 4)
    settled.settle()
    with torch.no_grad():
        trained.w.fill_(1.5)
        for _ in range(2):
            with rheobase.streaming(settled):
                spikes = torch.cat([settled(step) for step in x.split(1)])
            settled.load_state_dict(trained.state_dict())
    assert torch.equal(spikes, trained(x)) and not torch.equal(spikes, PLIF()(x))


@pytest.mark.parametrize("train", [True, False])
def test_settled_neurons_take_changed_weights(train: bool) -> None:
    settled, x = PLIF(), 2.0 * torch.rand(3, 2, 4)
    settled.settle()

    def streamed() -> Tensor:
        with torch.no_grad(), rheobase.streaming(settled):
            return torch.cat([settled(step) for step in x.split(1)])

    before = streamed()
    if train:
        settled(x).sum().backward()
        settled.w.data.add_(1.5)
    else:
        with torch.no_grad():
            settled.w.add_(1.5)
    assert torch.equal(streamed(), settled(x)) and not torch.equal(streamed(), before)


def test_settled_neurons_send_bytes_and_refuse_another_shape() -> None:
    neuron = LIF()
    neuron.settle()
    x = 3.0 * torch.rand(1, 2, 4)
    with torch.no_grad(), rheobase.streaming(neuron):
        spikes = neuron(x)
        neuron.to_bytes = True
        assert neuron(torch.zeros_like(x)).dtype == torch.uint8
        with pytest.raises(ValueError, match=r"streams on inputs \[t, 2, 4\]"):
            neuron(torch.zeros(1, 3, 4))
    assert torch.equal(spikes, LIF()(x))


def test_what_is_faster_is_taken_and_computes_the_same(monkeypatch):
    """Whatever the clock says: once with all that can be taken, once with nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 64, 8))
    x = 0.5 * (torch.rand(4, 64, 8, 8) < 0.02).float()
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x, stream=True)
    assert isinstance(fast.net[0], EventConv2d) and isinstance(fast.net[2], EventLinear)
    assert fast.choices[1].startswith("0: event driven at 2.")
    torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (before, "left"))
    assert type(rheobase.optimize(net, x).net[0]) is nn.Conv2d


def test_the_faster_of_two_is_found_by_the_clock():
    slow, quick = nn.Linear(2000, 2000), nn.Linear(2, 2)
    run = {slow: torch.rand(64, 2000), quick: torch.rand(64, 2)}
    chosen, finding = optimize._faster(quick, slow, lambda module: module(run[module]))
    assert chosen is quick and finding.endswith("taken")
    assert optimize._faster(slow, quick, lambda module: module(run[module]))[0] is quick


def test_another_dtype_only_where_it_is_allowed():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(512, 512), LIF(), nn.Linear(512, 4)), torch.rand(T, 64, 512)
    assert rheobase.optimize(net, x).dtype == torch.float32
    allowed = rheobase.optimize(net, x, dtypes=(torch.float32, torch.bfloat16))
    assert allowed.dtype in (torch.float32, torch.bfloat16)
    assert allowed(x).dtype == torch.float32
    assert any("bfloat16" in line for line in allowed.choices)
    torch.testing.assert_close(allowed(x).mean(0), net(x).mean(0), rtol=0.1, atol=0.1)
    with pytest.raises(TypeError, match="not floating point"):
        rheobase.optimize(net, x.long())


def test_event_driven_layers_compete_with_what_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense convolution is timed as `over_time` calls it, by Winograd's way where that runs."""
    timed = []

    def watch(made: nn.Module, before: nn.Module, run) -> tuple[nn.Module, str]:
        called = []
        with monkeypatch.context() as patch:
            patch.setattr(winograd, "conv3x3", lambda x, *_: called.append(x.shape))
            run(before)
        timed.append(called)
        return before, ""

    monkeypatch.setattr(optimize, "_faster", watch)
    conv = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)
    optimize._spike_layers(
        TimeSequential(conv, LIF()), 3.0 * torch.rand(2, N, 32, 16, 16), pieces=2
    )
    assert timed == [[(N, 32, 16, 16)] * 2]


def test_the_dtype_moves_with_the_weights() -> None:
    net, x = nn.Sequential(nn.Linear(8, 8), LIF(), nn.Linear(8, 4)), torch.rand(T, N, 8)
    fast = rheobase.optimize(net, x).double()
    y = fast(x)
    assert y.dtype == torch.float32 and fast.dtype == torch.float64
    torch.testing.assert_close(y, net.double()(x.double()).float())
    assert fast.bfloat16()(x).dtype == torch.float32


def test_gradients_flow_through_what_travels_as_bytes(monkeypatch) -> None:
    """Of the input, as in attacks, and of weights that are trained again."""
    net = TimeSequential(nn.Conv2d(3, 32, 3, padding=1), LIF(), nn.Conv2d(32, 24, 3, padding=1))
    x = (3.0 * torch.rand(T, N, 3, 8, 8)).requires_grad_()
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x.detach())
    assert "the spikes of 1 neurons travel as bytes" in fast.choices
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    (found,) = torch.autograd.grad(fast(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    fast.requires_grad_(True)(x.detach()).square().sum().backward()
    assert fast.net[0].weight.grad.any()


def test_spikes_travel_as_bytes_to_layers_that_look_sums_up(monkeypatch):
    net = nn.Sequential(
        TimeSequential(
            nn.Conv2d(3, 32, 3, padding=1), LIF(), nn.Conv2d(32, 24, 3, padding=1), LIF()
        ),
        nn.Flatten(2),
        nn.Linear(24 * 64, 8),
    ).eval()
    x = 3.0 * torch.rand(T, N, 3, 8, 8)
    monkeypatch.setattr(optimize, "_faster", lambda made, before, run: (made, "taken"))
    fast = rheobase.optimize(net, x)
    kinds = [type(module) for module in fast.modules()]
    assert kinds.count(LookupConv2d) == 1 and kinds.count(LookupLinear) == 1
    assert "the spikes of 2 neurons travel as bytes" in fast.choices
    torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)
    halves = rheobase.optimize(net, x, dtypes=(torch.bfloat16,))
    assert halves.dtype == torch.bfloat16
    assert (halves(x) - net(x)).norm() < 0.3 * net(x).norm()
    exported = torch.export.export(fast, (x,)).module()
    torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)
