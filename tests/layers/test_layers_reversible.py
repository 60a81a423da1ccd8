"""Reversible blocks: the gradient of plain autograd, from memory that does not grow with depth."""

import copy

import pytest
import torch
from torch import nn

import rheobase
from rheobase.layers import NeuronConvNorm, ReversibleSequence
from rheobase.neurons import PLIF


def sequence(depth, **options):
    torch.manual_seed(0)

    def branch():
        unit = NeuronConvNorm(4, 4, PLIF(), kernel_size=3)
        nn.init.uniform_(unit.norm.weight, 1.0, 3.0)
        return unit

    return ReversibleSequence([(branch(), branch()) for _ in range(depth)], **options).double()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(3, 2, 8, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_plain_autograd(x, training):
    net = sequence(3).train(training)
    twin = copy.deepcopy(net)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, plain = net(a), torch.cat(twin.run(*b.chunk(2, dim=2)), dim=2)
    assert torch.equal(ours, plain)
    weight = torch.randn_like(x)
    (ours * weight).sum().backward()
    (plain * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-10, msg=name)
    for key, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


def test_official_statistics_are_updated_twice(x):
    for twice, count in ((False, 1), (True, 2)):
        net = sequence(1, update_twice=twice)
        net(x.requires_grad_()).sum().backward()
        assert net.f[0].norm.num_batches_tracked == count


def saved_bytes(run):
    sizes = []

    def pack(tensor):
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes)


def test_memory_is_constant_in_depth(x):
    reversible = [saved_bytes(lambda d=d: sequence(d)(x)) for d in (1, 4)]
    plain = [saved_bytes(lambda d=d: sequence(d).run(*x.chunk(2, dim=2))) for d in (1, 4)]
    assert reversible[0] == reversible[1]
    assert plain[1] > 3 * plain[0]


def test_half_precision_becomes_float32(x):
    net = sequence(2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x.bfloat16())
    y.sum().backward()
    assert y.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_streaming(x):
    net = sequence(2).eval()
    with torch.no_grad(), rheobase.streaming(net):
        pieces = torch.cat([net(x[:1]), net(x[1:])])
    torch.testing.assert_close(pieces, net(x))


def test_gradients_under_functional_transforms(x):
    net = ReversibleSequence([(nn.Tanh(), nn.Sigmoid())])
    ours = torch.func.grad(lambda x: net(x).square().sum())(x)
    x.requires_grad_()
    (theirs,) = torch.autograd.grad(net(x).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_refuses_to_train_what_draws_otherwise_the_second_time(x):
    net = sequence(1)
    net.g[0] = nn.Sequential(net.g[0], nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"g\.0\.1 \(Dropout\) draws at random"):
        net(x)
    assert net.eval()(x).shape == x.shape
    net.train().g[0][1].p = 0.0
    net(x)
