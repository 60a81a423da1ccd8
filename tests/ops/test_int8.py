"""Bytes times 8-bit weights: exact sums, whichever way they are taken."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.ops import int8

needs_byte_products = pytest.mark.skipif(
    not int8.has_byte_products(), reason="this processor has no exact products of bytes"
)

# Channels in and out, kernel, stride, padding, largest input.
SHAPES = [
    (5, 7, 3, 1, 1, 1),
    (130, 70, 5, 2, 2, 1),
    (64, 200, 3, 1, 0, 3),
    (300, 64, 1, 1, 0, 1),
    (16, 65, (3, 1), (2, 1), (1, 0), 30),
]


def _case(inputs, outputs, kernel, stride, padding, largest):
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    values, _ = int8.quantised(layer.weight)
    active = torch.rand(3, inputs, 9, 8) < 0.1 / max(1, largest // 2)
    x = torch.randint(1, largest + 1, active.shape) * active
    return layer, values, x.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _exact(x: Tensor, values: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution of integers in float64, which is exact, with a scale of 1/2 and a bias of 3."""
    sums = F.conv2d(x.double(), values.double(), None, layer.stride, layer.padding)
    return (sums / 2 + 3).float()


def _scale_and_bias(values: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full((len(values),), 0.5), torch.full((len(values),), 3.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_events_are_added_up_exactly(shape: tuple) -> None:
    layer, values, x = _case(*shape)
    rows = int8.weight_rows(values)
    y = int8.event_conv2d(x, rows, *_scale_and_bias(values), layer.stride, layer.padding)
    assert y is not None
    assert torch.equal(y, _exact(x, values, layer))


def test_sums_of_many_events_leave_int16() -> None:
    layer = nn.Conv2d(400, 64, 3, padding=1)
    values = torch.full_like(layer.weight, 127, dtype=torch.int8)
    x = (torch.rand(1, 400, 6, 6) < 0.39).to(torch.uint8).to(memory_format=torch.channels_last)
    rows, (scale, bias) = int8.weight_rows(values), _scale_and_bias(values)
    y = int8.event_conv2d(x, rows, scale, bias, (1, 1), (1, 1))
    assert y is not None and float(y.max()) > 2**15
    assert torch.equal(y, _exact(x, values, layer))


@pytest.mark.parametrize("kind", [1, 9])
def test_too_many_events_are_left_to_the_dense_product(kind: int) -> None:
    _, values, x = _case(5, 7, 3, 1, 1, kind)
    x = torch.full_like(x, kind)
    rows, (scale, bias) = int8.weight_rows(values), _scale_and_bias(values)
    assert int8.event_conv2d(x, rows, scale, bias, (1, 1), (1, 1)) is None


@needs_byte_products
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_sums_are_exact(shape: tuple) -> None:
    layer, values, x = _case(*shape)
    scale, bias = _scale_and_bias(values)
    places = layer.stride, layer.padding, layer.dilation, layer.groups
    packed = int8.packed(values, scale, *places)
    assert torch.equal(int8.dense_conv2d(x, packed, scale, bias, *places), _exact(x, values, layer))


def test_weights_are_within_half_a_step() -> None:
    weight = torch.randn(6, 4, 3, 3)
    values, scale = int8.quantised(weight)
    error = (values * scale.view(-1, 1, 1, 1) - weight).abs().amax((1, 2, 3))
    assert bool((error <= scale * 0.50001).all())
    assert values.abs().amax((1, 2, 3)).tolist() == [127] * 6


@pytest.mark.parametrize(
    ("x", "step"),
    [([0.0, 1.0, 4.0], 1.0), ([0.5, 2.0], 0.5), ([1 / 9], None), ([300.0], None), ([-1.0], None)],
)
def test_grid(x: list[float], step: float | None) -> None:
    assert int8.grid_step(torch.tensor(x)) == step
