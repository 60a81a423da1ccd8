"""`rheobase.optimize` gives the same spikes in float64, for every family."""

import torch
from torch import Tensor, nn

import rheobase
from rheobase.neurons import Neuron


def _spikes(net: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What every neuron fires, in order, and the output."""
    found: list[Tensor] = []

    def record(module: nn.Module, x: object, y: Tensor | tuple[Tensor, Tensor]) -> None:
        found.append(y[0] if isinstance(y, tuple) else y)

    neurons = [module for module in net.modules() if isinstance(module, Neuron)]
    handles = [module.register_forward_hook(record) for module in neurons]
    with torch.no_grad():
        y = net(x)
    for handle in handles:
        handle.remove()
    return found, y


def test_optimized_networks_fire_the_same_spikes(net, images):
    net.eval().double()
    images = images.double()
    fast = rheobase.optimize(net, images)
    expected, y = _spikes(net, images)
    spikes, ours = _spikes(fast, images)
    assert len(spikes) == len(expected)
    for a, b in zip(spikes, expected, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(ours, y, rtol=1e-9, atol=1e-9)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    left = [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) < len(norms) or not norms
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
