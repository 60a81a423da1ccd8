"""Inputs that do not fit are refused by PyTorch's own layers, never read past their ends."""

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import (
    EventConv2d,
    EventLinear,
    Int8Conv2d,
    Int8Linear,
    LookupConv2d,
    LookupLinear,
)
from rheobase.ops.events import event_conv2d, event_linear, rows_by_input

LINEAR = [EventLinear(8, 4), LookupLinear(8, 4), Int8Linear(nn.Linear(8, 4))]
CONVOLUTIONS = [
    EventConv2d(8, 4, 3),
    LookupConv2d(8, 4, 3),
    Int8Conv2d(nn.Conv2d(8, 4, 3)),
    Int8Conv2d(nn.Conv2d(8, 4, 3), sparse=True),
]


def _few(*shape: int) -> Tensor:
    x = torch.zeros(shape)
    x[..., -1] = 1.0
    return x


@pytest.mark.parametrize("layer", LINEAR, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("shape", [(50, 100), (5, 6), (1, 9)])
def test_other_numbers_of_inputs(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(_few(*shape))


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 16, 9, 9), "to have 8 channels"),
        ((2, 4, 9, 9), "to have 8 channels"),
        ((2, 8, 2, 9), "Kernel size can't be greater"),
    ],
)
def test_other_channels_and_small_images(
    layer: nn.Module, shape: tuple[int, ...], said: str
) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match=said):
        layer(_few(*shape))


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda layer: type(layer).__name__)
def test_an_image_without_a_batch(layer: nn.Module) -> None:
    x = _few(8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("size", [3, 400])
@pytest.mark.parametrize("rows", [1, 50])
def test_other_numbers_of_biases(size: int, rows: int) -> None:
    weight, bias = torch.rand(4, 8), torch.ones(size)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"expand|add"):
        event_linear(_few(rows, 8), weight, bias, rows_by_input(weight))
    with torch.no_grad(), pytest.raises(RuntimeError, match="bias"):
        event_conv2d(_few(rows, 8, 9, 9), torch.rand(4, 8, 3, 3), bias, (1, 1), (0, 0))


def test_one_bias_for_all_outputs() -> None:
    x, weight = _few(50, 8), torch.rand(4, 8)
    torch.testing.assert_close(event_linear(x, weight, torch.ones(1)), x @ weight.t() + 1)
