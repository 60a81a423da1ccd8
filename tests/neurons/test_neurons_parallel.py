"""Parallel neurons: their fused passes against the same in plain PyTorch."""

import pytest
import torch
from torch import Tensor

from rheobase.neurons import PSN, MaskedPSN, SlidingPSN, parallel
from rheobase.neurons.stepwise import spike
from rheobase.surrogate import ATan, Sigmoid

T = 7


def _plain(neuron: PSN | SlidingPSN, x: Tensor) -> Tensor:
    if isinstance(neuron, SlidingPSN):
        before = neuron.k - 1
        lags = [torch.cat([x.new_zeros(j, *x.shape[1:]), x])[:T] for j in range(before, -1, -1)]
        h = neuron.bias + sum(w * lag for w, lag in zip(neuron.weight, lags, strict=True))
    else:
        h = (neuron.matrix() @ x.flatten(1) + neuron.bias).view_as(x)
    return spike(h, neuron.surrogate)


@pytest.mark.parametrize("block", [1, 60, 1 << 19])
@pytest.mark.parametrize(
    "make",
    [
        lambda: PSN(T),
        lambda: MaskedPSN(T, 3, masking=0.5, surrogate=Sigmoid()),
        lambda: SlidingPSN(1),
        lambda: SlidingPSN(3, exponential=False),
        lambda: SlidingPSN(9, surrogate=ATan(3.0)),
    ],
    ids=["psn", "masked", "sliding of 1", "sliding of 3", "sliding of more than T"],
)
def test_spikes_and_gradients_are_those_of_the_formula(
    make: object, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_BLOCK", block)
    torch.manual_seed(0)
    neuron = make().double()  # type: ignore[operator]
    x = (2.0 * torch.randn(T, 2, 3, 5, dtype=torch.float64)).requires_grad_()
    g = torch.randn(T, 2, 3, 5, dtype=torch.float64)
    leaves = [x, *neuron.parameters()]
    spikes, expected = neuron(x), _plain(neuron, x)
    assert 0.02 < expected.mean() < 0.9
    assert torch.equal(spikes, expected)
    ours, theirs = (torch.autograd.grad(s, leaves, g) for s in (spikes, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_function_transforms_see_through_a_filter() -> None:
    neuron, x = SlidingPSN(3), torch.randn(T, 2, 4)

    def loss(x: Tensor) -> Tensor:
        return neuron(x).square().sum()

    x.requires_grad_()
    (expected,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(torch.func.grad(loss)(x.detach()), expected)


@pytest.mark.parametrize("make", [lambda: PSN(T), lambda: SlidingPSN(1), lambda: SlidingPSN(3)])
@pytest.mark.parametrize("order", [(0, 1, 3, 4, 2), (0, 4, 3, 1, 2)], ids=["last", "any"])
def test_they_keep_the_memory_order(make, order: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    neuron, plain = make().double(), torch.randn(T, 2, 3, 4, 5, dtype=torch.float64)
    there = [order.index(axis) for axis in range(5)]
    gradients = []
    for x in (plain, plain.permute(order).contiguous().permute(there)):
        leaf = x.clone().requires_grad_()
        spikes = neuron(leaf)
        assert spikes.stride() == x.stride()
        assert torch.equal(spikes, neuron(plain))
        parameters = [leaf, *neuron.parameters()]
        gradients.append(torch.autograd.grad((spikes * plain).sum(), parameters))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "neuron", [PSN(5), MaskedPSN(5, k=2, masking=0.5)], ids=["PSN", "MaskedPSN"]
)
def test_halves_are_taken_by_float32_weights(neuron: PSN) -> None:
    x = (3.0 * torch.randn(5, 4, 6)).bfloat16()
    spikes = neuron(x)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), neuron(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert neuron(x).dtype == torch.bfloat16
