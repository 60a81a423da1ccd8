"""Spikes saved as bits: the same gradients, less memory."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import over_time, sew_join
from rheobase.neurons import LIF
from rheobase.ops.packed import _pack, largest, mark


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = LIF()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(self.lif(over_time(x, self.a)), self.pool)
        branches = [self.lif(over_time(x, layer)) for layer in (self.b, self.c)]
        stream = sew_join(sew_join(branches[0], x, "ADD"), branches[1], "ADD")
        assert largest(stream) == 3
        return over_time(stream, self.c)


def _saved(net: nn.Module, x: Tensor, packed: bool, monkeypatch) -> tuple[int, list[Tensor]]:
    """Bytes that autograd keeps for the backward pass, and the gradients."""
    if not packed:
        monkeypatch.setattr("rheobase.ops.packed.largest", lambda x: None)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        y = net(x)
    gradients = torch.autograd.grad(y.square().sum(), list(net.parameters()))
    return sum(kept.values()), list(gradients)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_the_same(channels_last: bool, monkeypatch) -> None:
    torch.manual_seed(0)
    net, x = _Net(), torch.rand(4, 2, 3, 16, 16) * 3
    if channels_last:
        x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    less, gradients = _saved(net, x, True, monkeypatch)
    more, expected = _saved(net, x, False, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    # No longer dense: the input of the pool (8 x 16 x 16) and those of the two convolutions on the
    # pooled spikes (one tensor) and on their sum (8 x 8 x 8 each), at 8 images of 8 channels.
    assert more - less >= 4 * 8 * 8 * (2 * 8 * 8)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 512, 1000, 20005])
def test_packing_and_back(count: int) -> None:
    torch.manual_seed(count)
    for values, bits in ((torch.randint(0, 2, (count,)), True), (torch.arange(count) % 256, False)):
        x = values.to(torch.bfloat16 if bits else torch.float32)
        packed = _pack(x, bits=bits)
        assert packed.data.nbytes == (-(-count // 8) if bits else count)
        assert torch.equal(packed.unpack(), x)
        assert packed.unpack().dtype == x.dtype


def test_marks_are_for_training_only() -> None:
    x = torch.ones(3)
    with torch.no_grad():
        assert largest(mark(x, 1)) is None
    assert largest(mark(x, 1)) == 1


@pytest.mark.parametrize("change", ["mul_", "add_", "dropout"])
def test_spikes_that_were_changed_in_place_are_no_longer_bits(change: str) -> None:
    layer, gradients = nn.Linear(16, 4).double(), []
    for in_place in (True, False):
        torch.manual_seed(0)
        spikes = LIF()(3 * torch.randn(4, 2, 16, dtype=torch.float64, requires_grad=True))
        # A layer has packed them before.
        before = over_time(spikes, nn.Linear(16, 4).double())
        if change == "dropout":
            changed = nn.functional.dropout(spikes, 0.5, inplace=in_place)
        else:
            other = spikes if in_place else spikes.clone()
            changed = other.mul_(0.5) if change == "mul_" else other.add_(torch.ones_like(spikes))
        assert (changed is spikes) == in_place
        y = over_time(changed, layer)
        gradients += torch.autograd.grad(y.square().sum() + before.sum(), layer.weight)
    assert torch.equal(*gradients)


def test_a_pool_of_ones_own_gives_no_bits() -> None:
    class Halved(nn.MaxPool2d):
        def forward(self, input: Tensor) -> Tensor:
            return 0.5 * super().forward(input)

    spikes = LIF()(3 * torch.randn(2, 1, 3, 4, 4, requires_grad=True))
    assert largest(over_time(spikes, nn.MaxPool2d(2))) == 1
    assert largest(over_time(spikes, Halved(2))) is None
    hooked = nn.MaxPool2d(2)
    hooked.register_forward_hook(lambda _m, _in, out: 0.5 * out)
    assert largest(over_time(spikes, hooked)) is None


def test_transforms_and_who_forbids_hooks_get_spikes_as_they_are() -> None:
    torch.manual_seed(0)
    net, x = _Net(), torch.rand(4, 2, 3, 8, 8) * 3
    weights = dict(net.named_parameters())
    expected = torch.autograd.grad(net(x).square().sum(), list(weights.values()))

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights, (x,)).square().sum()

    found = [torch.func.grad(loss)(weights, x)[name] for name in weights]
    with torch.autograd.graph.disable_saved_tensors_hooks("none here"):
        plain = torch.autograd.grad(net(x).square().sum(), list(weights.values()))
    stacked = torch.func.vmap(net)(x.unsqueeze(0)).square().sum()
    batched = torch.autograd.grad(stacked, list(weights.values()))
    for gradients in (found, plain, batched):
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_inference_mode_with_gradients_enabled_again() -> None:
    with torch.inference_mode(), torch.enable_grad():
        spikes = over_time(torch.rand(3, 2, 4), LIF(), nn.Linear(4, 4), LIF())
    assert spikes.shape == (3, 2, 4)


def test_spikes_that_were_packed_are_saved_as_any_tensor() -> None:
    spikes = LIF()(3.0 * torch.rand(4, 8, 64))
    over_time(spikes, nn.Linear(64, 16))
    file = io.BytesIO()
    torch.save(spikes, file)
    file.seek(0)
    assert torch.equal(torch.load(file), spikes)
    over_time(copy.deepcopy(spikes), nn.Linear(64, 16)).sum().backward()
