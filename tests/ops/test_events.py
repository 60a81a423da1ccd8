"""Event-driven products equal the dense ones: exactly for integers, else to rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import EventConv2d, EventLinear
from rheobase.ops.events import event_conv2d, event_linear, rows_by_input, weight_gradient
from rheobase.ops.events.compressed import compressed
from rheobase.ops.events.nonzero import nonzero, places

SHAPES = [(1, 33, 12), (7, 40, 70), (100, 64, 130), (200, 40, 1100)]


def _sparse(rows: int, inputs: int, density: float = 0.1) -> Tensor:
    chosen = torch.Generator().manual_seed(rows)
    x = (torch.rand(rows, inputs, generator=chosen) < density).double()
    return x * torch.randint(1, 4, x.shape, generator=chosen)


@pytest.mark.parametrize("shape", SHAPES)
def test_integers_are_exact_and_gradients_those_of_the_dense_product(shape):
    rows, inputs, outputs = shape
    x = _sparse(rows, inputs).requires_grad_()
    weight = torch.randint(-8, 8, (outputs, inputs)).double().requires_grad_()
    bias = torch.randint(-8, 8, (outputs,)).double().requires_grad_()
    wanted = [x, weight, bias]
    y, dense = event_linear(x, weight, bias), nn.functional.linear(x, weight, bias)
    assert type(y.grad_fn).__name__ == "_EventLinearBackward"
    g = torch.randint(-8, 8, y.shape).double()
    assert torch.equal(y, dense)
    for ours, theirs in zip(
        torch.autograd.grad(y, wanted, g), torch.autograd.grad(dense, wanted, g), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("inputs", "outputs"), [(33, 12), (700, 130), (4096, 1024)])
def test_a_single_row_of_any_density(density: float, inputs: int, outputs: int) -> None:
    x, weight = _sparse(1, inputs, density), torch.randint(-8, 8, (outputs, inputs)).double()
    bias = torch.randint(-8, 8, (outputs,)).double()
    rows = rows_by_input(weight)
    for b in (bias, None):
        with torch.no_grad():
            y = event_linear(x.unsqueeze(0), weight, b, rows)
        assert torch.equal(y, nn.functional.linear(x.unsqueeze(0), weight, b))


def test_real_weights_agree_to_rounding():
    x, weight = _sparse(50, 64).view(10, 5, 64).float(), torch.randn(32, 64)
    torch.testing.assert_close(event_linear(x, weight), nn.functional.linear(x, weight))
    g = torch.randn(50, 32)
    torch.testing.assert_close(weight_gradient(x.view(50, 64), g), g.t() @ x.view(50, 64))


def test_dense_input_takes_the_dense_product():
    x, weight = torch.randn(50, 64), torch.randn(32, 64, requires_grad=True)
    assert torch.equal(event_linear(x, weight), nn.functional.linear(x, weight))
    assert compressed(x) is None
    # Most rows silent, one dense: few events all the same, though they outgrow a chunk's room.
    x[1:] = 0.0
    torch.testing.assert_close(event_linear(x, weight), nn.functional.linear(x, weight))


def test_weights_kept_by_input_follow_the_weight():
    layer, x = EventLinear(33, 12).requires_grad_(False), _sparse(4, 33).float()
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(2.0)
        layer.bias.mul_(2.0)
        assert torch.allclose(layer(x), 2.0 * before)
        layer.weight.data = torch.zeros(12, 33)
        assert torch.equal(layer(x), layer.bias.expand(4, 12))


def test_nothing_is_kept_beyond_a_step_of_training():
    layer, x = EventLinear(33, 12), _sparse(4, 33).float()
    with torch.no_grad():
        layer(x)
    layer(x).sum().backward()
    # As optimisers of one's own may, which no version tells.
    layer.weight.data.sub_(layer.weight.grad)
    with torch.no_grad():
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("rows", [1, 4])
def test_weights_that_learn_may_change_unseen(rows: int) -> None:
    layer, x = EventLinear(33, 12, bias=False), _sparse(rows, 33).float()
    conv, image = EventConv2d(33, 12, 1, bias=False), x[:, :, None, None]
    with torch.no_grad():  # as in plasticity, which no backward pass interrupts
        for module, given in ((layer, x), (conv, image)):
            before = module(given)
            module.weight.data.mul_(2.0)
            torch.testing.assert_close(module(given), 2.0 * before)


def test_traced_and_transformed_calls_take_the_dense_product():
    layer, x = EventLinear(33, 12), _sparse(4, 33).float()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "window", "stride", "padding"),
    [
        ((1, 16, 9, 7), (3, 3), (1, 1), (1, 1)),
        ((2, 5, 8, 11), (3, 5), (2, 3), (1, 2)),
        ((3, 6, 4, 4), (1, 1), (1, 1), (0, 0)),
        ((1, 4, 5, 5), (2, 2), (2, 2), (3, 0)),
    ],
)
def test_a_convolution_of_integers_is_exact(shape, window, stride, padding):
    batch, inputs, height, width = shape
    x = _sparse(batch * height * width, inputs).view(batch, height, width, inputs)
    x = x.permute(0, 3, 1, 2)
    weight = torch.randint(-8, 8, (20, inputs, *window)).double()
    bias = torch.randint(-8, 8, (20,)).double()
    expected = nn.functional.conv2d(x, weight, bias, stride, padding)
    assert torch.equal(event_conv2d(x, weight, bias, stride, padding), expected)
    assert torch.equal(event_conv2d(x.contiguous(), weight, bias, stride, padding), expected)


def test_a_convolution_that_is_trained_is_the_dense_one():
    layer, x = EventConv2d(6, 8, 3, padding=1), _sparse(100, 6).view(1, 10, 10, 6).float()
    x = x.permute(0, 3, 1, 2)
    y = layer(x)
    y.sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(layer(x), y.detach())
        layer.weight.zero_()
        assert torch.equal(layer(x)[0, :, 3, 3], layer.bias)
    with pytest.raises(ValueError, match="EventConv2d takes groups=1"):
        EventConv2d(8, 8, 3, groups=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 64, 131])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
def test_nonzero_finds_every_place(dtype: type, size: int, density: float) -> None:
    random = np.random.default_rng(0)
    line = np.where(random.random(size) < density, random.standard_normal(size), 0.0).astype(dtype)
    line[: size // 2 : 7] = -0.0
    line[-1] = np.nan  # is not 0
    which, values = np.full(size, -1, np.int32), np.full(size, 7.0, dtype)
    count = nonzero(line, which, values)
    expected = np.flatnonzero(line)
    assert which[:count].tolist() == expected.tolist()
    np.testing.assert_array_equal(values[:count], line[expected])


@pytest.mark.parametrize("size", [1, 15, 16, 17, 64, 131])
def test_places_of_bytes_are_multiples_of_a_step(size: int) -> None:
    line = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)
    line[-1] = 255
    which = np.full(size, -1, np.int32)
    count = places(line, 40, which)
    assert which[:count].tolist() == (40 * np.flatnonzero(line)).tolist()
