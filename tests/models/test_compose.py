"""Whole models under `torch.compile` and `torch.export`."""

import copy

import pytest
import torch

from rheobase.models import create_model

SMALL = {
    "spikformer_mnist_2_64": ({"dim": 16, "depth": 1, "heads": 2}, (2, 1, 28, 28)),
    "sew_resnet18": ({"num_classes": 5}, (1, 3, 32, 32)),
}


@pytest.mark.parametrize("name", SMALL)
def test_compile_whole_graph_in_training(name: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    overrides, shape = SMALL[name]
    net, x = create_model(name, **overrides), torch.rand(shape)
    twin = copy.deepcopy(net)
    expected = net(x)
    actual = torch.compile(twin, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for a, b in zip(twin.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[key], value)


@pytest.mark.parametrize("name", SMALL)
def test_export(name: str) -> None:
    overrides, shape = SMALL[name]
    net, x = create_model(name, **overrides).eval(), torch.rand(shape)
    with torch.no_grad():
        assert torch.equal(torch.export.export(net, (x,)).module()(x), net(x))


def test_repeated_image_equals_repeating_it() -> None:
    torch.manual_seed(0)
    overrides, shape = SMALL["spikformer_mnist_2_64"]
    net, x = create_model("spikformer_mnist_2_64", **overrides).double(), torch.rand(shape).double()
    twin = copy.deepcopy(net)
    lazy = net(x)
    whole = twin(x.expand(net.T, *x.shape).contiguous())
    torch.testing.assert_close(lazy, whole, rtol=1e-9, atol=1e-9)
    lazy.square().sum().backward()
    whole.square().sum().backward()
    for (key, a), b in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9, msg=key)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[key], msg=key)
