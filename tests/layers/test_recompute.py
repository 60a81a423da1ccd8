"""Blocks computed twice: the same results, and no more kept than was allowed."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

import rheobase
from rheobase.layers import ConvNormNeuron, recompute, repeat
from rheobase.models import create_model
from rheobase.neurons import LIF, PLIF
from rheobase.surrogate import Sigmoid

T, N = 4, 3


def _convolutions() -> nn.Module:
    def unit(channels: int) -> nn.Module:
        neuron = PLIF(surrogate=Sigmoid(4.0))
        return nn.Sequential(
            ConvNormNeuron(channels, 8, neuron, kernel_size=3),
            ConvNormNeuron(8, 8, LIF(), kernel_size=3),
        )

    return nn.Sequential(unit(2), *(unit(8) for _ in range(5)))


def _spikformer() -> nn.Module:
    return create_model("spikformer_cifar10_4_384", depth=3, dim=32, heads=2, T=T)


def _input(make: object) -> Tensor:
    if make is _spikformer:
        return torch.randn(N, 3, 32, 32, dtype=torch.float64)
    return repeat(torch.randn(N, 2, 8, 8, dtype=torch.float64), T)


def _step(net: nn.Module, x: Tensor) -> list[Tensor]:
    y = net(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    (y * weights).sum().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return [y.detach(), *gradients, *net.buffers()]


def _kept(net: nn.Module, x: Tensor) -> int:
    """Bytes of the storages that a forward pass keeps, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net(x)
    total = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in weights)
    del output
    return total


@pytest.mark.parametrize("make", [_convolutions, _spikformer])
def test_results_are_the_same_and_less_is_kept(make) -> None:
    torch.manual_seed(0)
    net = make().double().train()
    x = _input(make)
    twice = copy.deepcopy(net)
    least = _least(copy.deepcopy(net), x)
    found = recompute(twice, x, least)
    assert found.blocks and found.kept <= least < found.kept_before
    assert list(twice.state_dict()) == list(net.state_dict())
    assert [n for n, _ in twice.named_modules()] == [n for n, _ in net.named_modules()]
    # For two steps, since the first one's running statistics are the second one's.
    for _ in range(2):
        for a, b in zip(_step(net, x), _step(twice, x), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(net.eval()(x), twice.eval()(x))
    assert _kept(copy.deepcopy(twice).train(), x) < 0.6 * _kept(net.train(), x)


def test_whole_networks_are_saved_and_copied() -> None:
    torch.manual_seed(0)
    net, x = _convolutions().double().train(), _input(None)
    recompute(net, x, _least(copy.deepcopy(net), x))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    kept = _kept(copy.deepcopy(net), x)
    assert _kept(copy.deepcopy(loaded), x) == kept
    for a, b in zip(_step(net, x), _step(loaded, x), strict=True):
        assert torch.equal(a, b)


def _least(net: nn.Module, x: Tensor) -> int:
    """The lowest budget that can be met, as the refusal of none at all tells it."""
    with pytest.raises(ValueError, match=r"keeps ([\d.]+) MiB even if") as refusal:
        recompute(net, x, 0)
    words = str(refusal.value).split()
    return int((float(words[words.index("keeps") + 1]) + 0.06) * 2**20)


def test_a_generous_budget_changes_nothing() -> None:
    net = _convolutions().double()
    found = recompute(net, _input(_convolutions), 1e12)
    assert found.blocks == () and found.again == 0.0
    assert {type(m) for m in net.modules()} == {type(m) for m in _convolutions().modules()}


def test_dropout_is_drawn_once_and_the_probe_leaves_no_trace() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)) for _ in range(8)))
    twice = copy.deepcopy(net)
    x = torch.randn(2, 4)
    state = torch.get_rng_state()
    recompute(twice, x, 350)
    assert torch.equal(torch.get_rng_state(), state)
    results = []
    for one in (net, twice):
        torch.manual_seed(1)
        results.append(_step(one, x))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_streaming_does_not_compute_twice() -> None:
    net = _convolutions().double()
    x = _input(_convolutions).contiguous()
    net.eval()
    whole = net(x)
    net.train()
    recompute(net, x, _least(copy.deepcopy(net), x))
    with rheobase.streaming(net.eval()):
        pieces = torch.cat([net(x[:1]), net(x[1:])])
    assert torch.equal(pieces, whole)


def test_plans_are_for_training() -> None:
    with pytest.raises(ValueError, match=r"net\.train\(\)"):
        recompute(_convolutions().eval(), torch.zeros(T, N, 2, 8, 8), 1e9)
