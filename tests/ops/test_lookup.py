"""Sums that are looked up equal the dense ones: exactly for integers, else to rounding."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import LookupConv2d, LookupLinear
from rheobase.ops.lookup import lookup_conv2d, tables_of

# Images, inputs, outputs, height, width, kernel, stride, padding.
CONVOLUTIONS = [
    (2, 8, 16, 7, 9, (3, 3), (1, 1), (1, 1)),
    (3, 18, 40, 8, 6, (3, 5), (2, 1), (1, 2)),
    (1, 3, 10, 5, 5, (1, 1), (1, 1), (0, 0)),
    (5, 256, 30, 1, 1, (1, 1), (1, 1), (0, 0)),
    (2, 4, 100, 9, 9, (2, 2), (3, 3), (0, 1)),
    # Tables that are looked up a line, and less than a line, at a time.
    (1, 128, 64, 6, 6, (3, 3), (1, 1), (1, 1)),
    (9, 1536, 20, 1, 1, (1, 1), (1, 1), (0, 0)),
]


def _spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) < 0.3).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_convolutions_are_exact_in_integers(convolution, dtype):
    images, inputs, outputs, high, wide, kernel, stride, padding = convolution
    x = _spikes(images, inputs, high, wide).to(dtype)
    weight = torch.randint(-99, 99, (outputs, inputs, *kernel)).to(dtype)
    bias = torch.randint(-99, 99, (outputs,)).to(dtype)
    tables = tables_of(weight)
    for b in (bias, None):
        expected = F.conv2d(x, weight, b, stride, padding)
        for spikes in (x, x.to(torch.uint8), x.contiguous(memory_format=torch.channels_last)):
            y = lookup_conv2d(spikes, tables, b, outputs, kernel[1], stride, padding)
            assert y is not None
            assert torch.equal(y, expected)


def test_tables_hold_the_sum_of_every_set_of_four():
    weight = torch.randn(5, 6, 1, 1)
    tables = tables_of(weight)
    assert tables.shape == (1, 1, 2, 16, 16)
    assert torch.equal(tables[0, 0, 0, 0b0101, :5], weight[:, 0, 0, 0] + weight[:, 2, 0, 0])
    assert torch.equal(tables[0, 0, 1, 0b1110, :5], weight[:, 5, 0, 0])  # there is no sixth
    assert tables[..., 5:].count_nonzero() == 0


def test_an_image_gives_the_same_whatever_its_batch():
    layer, x = LookupConv2d(32, 48, 3, padding=1), _spikes(50, 32, 8, 8).float()
    with torch.no_grad():
        y = layer(x)
        assert torch.equal(torch.cat([layer(image) for image in x.split(7)]), y)
        torch.testing.assert_close(y, layer._conv_forward(x, layer.weight, layer.bias))


@pytest.mark.parametrize("value", [2.0, -1.0, 0.5, float("nan")])
def test_what_is_no_spike_takes_the_dense_product(value):
    x = _spikes(3, 40, 1, 1).float()
    x[1, 7] = value
    conv = LookupConv2d(40, 12, 1)
    linear = LookupLinear(40, 12)
    with torch.no_grad():
        assert lookup_conv2d(x, tables_of(conv.weight), None, 12, 1, (1, 1), (0, 0)) is None
        expected = F.conv2d(x, conv.weight, conv.bias)
        torch.testing.assert_close(conv(x), expected, rtol=0.0, atol=0.0, equal_nan=True)
        expected = F.linear(x.flatten(1), linear.weight, linear.bias)
        torch.testing.assert_close(
            linear(x.flatten(1)), expected, rtol=0.0, atol=0.0, equal_nan=True
        )


def test_training_is_dense_and_the_tables_follow_the_weights():
    linear, x = LookupLinear(40, 12), _spikes(2, 3, 40).float()
    dense = nn.functional.linear
    assert torch.equal(linear(x), dense(x, linear.weight, linear.bias))
    linear(x).sum().backward()
    assert linear.weight.grad is not None
    with torch.no_grad():
        before = linear(x)
        torch.testing.assert_close(before, dense(x, linear.weight, linear.bias))
        linear.weight.mul_(2.0)
        linear.bias.mul_(2.0)
        assert torch.equal(linear(x), 2.0 * before)
    with torch.inference_mode():
        assert torch.equal(linear(x), 2.0 * before)


def test_traced_and_transformed_calls_are_dense():
    layer, x = LookupConv2d(8, 12, 3), _spikes(2, 8, 5, 5).float()
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), layer._conv_forward(x, layer.weight, layer.bias))
        exported = torch.export.export(layer, (x,)).module()
        torch.testing.assert_close(exported(x), layer(x))
        torch.testing.assert_close(torch.func.vmap(layer)(x.unsqueeze(1)).squeeze(1), layer(x))


def test_other_convolutions_are_refused():
    with pytest.raises(ValueError, match="LookupConv2d takes groups=1, dilation=1"):
        LookupConv2d(8, 8, 3, groups=2)
