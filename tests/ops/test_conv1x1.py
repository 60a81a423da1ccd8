"""1x1 convolution by products of our own: the direct sum, to float32's rounding."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import over_time
from rheobase.ops.products import conv1x1, takes


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# Channels beyond one block of the sum, more and fewer images than threads.
@pytest.mark.parametrize(
    ("n", "channels", "outputs", "height", "width"),
    [(3, 16, 48, 4, 4), (1, 112, 80, 8, 8), (5, 64, 16, 4, 12)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients(
    n: int, channels: int, outputs: int, height: int, width: int, bias: bool, threads: int
) -> None:
    torch.manual_seed(0)
    values = [torch.randn(n, channels, height, width), torch.randn(outputs, channels, 1, 1)]
    values += [torch.randn(outputs)] * bias
    g = torch.randn(n, outputs, height, width)
    ours = [v.clone().requires_grad_() for v in values]
    exact = [v.double().requires_grad_() for v in values]
    y = conv1x1(*ours, *[None] * (not bias))
    expected = F.conv2d(*exact)
    gradients = torch.autograd.grad(y, ours, g)
    exact_gradients = torch.autograd.grad(expected, exact, g.double())
    for value, wanted in zip((y, *gradients), (expected, *exact_gradients), strict=True):
        torch.testing.assert_close(value, wanted.float(), rtol=1e-5, atol=1e-5)


def test_results_do_not_depend_on_threads_or_on_other_images() -> None:
    torch.manual_seed(0)
    x, g = torch.randn(5, 48, 4, 8), torch.randn(5, 144, 4, 8)
    weight, before = torch.randn(144, 48, 1, 1), torch.get_num_threads()
    results = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        results.append(_of_all(x, weight, g))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
    alone = conv1x1(x[2:3], weight, None)
    assert torch.equal(alone, results[0][0][2:3])


def _of_all(x: Tensor, weight: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = conv1x1(*leaves, None)
    return y.detach(), *torch.autograd.grad(y, leaves, g)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(16, 16, 1, stride=2), (2, 16, 8, 8)),
        (nn.Conv2d(16, 16, 1, padding=1), (2, 16, 8, 8)),
        (nn.Conv2d(16, 16, 1, groups=2), (2, 16, 8, 8)),
        (nn.Conv2d(16, 24, 1), (2, 16, 8, 8)),
        (nn.Conv2d(16, 16, 1), (2, 16, 7, 7)),
        (nn.Conv2d(16, 16, 1).double(), (2, 16, 8, 8)),
        (nn.Conv2d(16, 16, 3, padding=1), (2, 16, 8, 8)),
    ],
)
def test_what_is_left_to_pytorch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=next(layer.parameters()).dtype)
    assert not takes(x, layer)


def test_layers_over_time_use_it() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(112, 32, 1), torch.rand(3, 2, 112, 4, 4)
    assert takes(x[0], layer)
    assert not takes(x[0].contiguous(memory_format=torch.channels_last), layer)
    assert torch.equal(over_time(x, layer)[1], conv1x1(x[1], layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert over_time(x, layer).dtype == torch.bfloat16
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    over_time(x, layer)
    assert len(seen) == 1
