"""What kernels cannot differentiate twice raises, also where what comes in is a constant."""

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.neurons import CLIF, LIF, PLIF, SlidingPSN
from rheobase.ops.scan import use_backend

RAISES = pytest.raises(RuntimeError, match="trying to differentiate twice")


def _slope(net: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the outputs' sum: what comes into the last node is a constant."""
    y = over_time(x, net)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return gradient


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (LIF(), (3,)),
        (PLIF(), (3,)),
        (CLIF(), (3,)),
        (SlidingPSN(3), (3,)),
        (nn.Conv2d(32, 32, 3, padding=1, bias=False), (32, 8, 8)),
        (nn.Conv2d(64, 64, 1, bias=False), (64, 8, 8)),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else None,
)
def test_a_gradient_of_a_gradient_raises(net: nn.Module, size: tuple[int, ...]) -> None:
    x = torch.randn(4, 2, *size, requires_grad=True)
    penalty = _slope(net, x).square().sum()
    with RAISES:
        (x.sum() + penalty).backward()


def test_the_reference_is_differentiated_twice() -> None:
    neuron, x = PLIF(), torch.randn(4, 2, 3, requires_grad=True)
    with use_backend("reference"):
        _slope(neuron, x).square().sum().backward()
    assert neuron.w.grad is not None and neuron.w.grad != 0.0
