"""3x3 convolution by Winograd's transforms: the direct sum, to the rounding that is stated."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import over_time
from rheobase.ops.winograd import conv3x3, takes

LAST = torch.channels_last


def _error(value: Tensor, exact: Tensor) -> float:
    return float(((value.double() - exact).square().mean() / exact.square().mean()).sqrt())


# Sides that the 4x4 tiles do not divide, channels that vectors do not.
@pytest.mark.parametrize(
    ("n", "channels", "outputs", "height", "width"),
    [(3, 32, 48, 8, 8), (2, 33, 40, 9, 19), (5, 64, 32, 16, 13)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients(
    n: int, channels: int, outputs: int, height: int, width: int, bias: bool
) -> None:
    torch.manual_seed(0)
    x = (torch.rand(n, channels, height, width) < 0.2).float().contiguous(memory_format=LAST)
    values = [x, torch.randn(outputs, channels, 3, 3) / (3 * channels**0.5)]
    values += [torch.randn(outputs)] * bias
    g = torch.randn(n, outputs, height, width)
    ours = [v.clone().requires_grad_() for v in values]
    exact = [v.double().requires_grad_() for v in values]
    y = conv3x3(*ours, *[None] * (not bias))
    expected = F.conv2d(*exact, padding=1)
    gradients = torch.autograd.grad(y, ours, g)
    exact_gradients = torch.autograd.grad(expected, exact, g.double())
    for value, wanted in zip((y, *gradients), (expected, *exact_gradients), strict=True):
        assert _error(value, wanted) < 3e-6


def test_an_image_gives_the_same_whatever_comes_with_it() -> None:
    torch.manual_seed(0)
    x = torch.rand(11, 40, 13, 17).contiguous(memory_format=LAST)
    weight = torch.randn(36, 40, 3, 3)
    y = conv3x3(x, weight, None)
    for first, last in ((0, 1), (3, 6), (4, 11)):
        assert torch.equal(y[first:last], conv3x3(x[first:last], weight, None))


def test_layers_over_time_use_it_and_only_in_float32() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.rand(2, 3, 32, 8, 8).flatten(0, 1).contiguous(memory_format=LAST)
    x = x.unflatten(0, (2, 3))
    direct = conv(x.flatten(0, 1)).unflatten(0, (2, 3))
    fast = over_time(x, conv)
    assert not torch.equal(fast, direct)
    torch.testing.assert_close(fast, direct, rtol=0, atol=1e-5)
    wide = copy.deepcopy(conv).double()
    assert torch.equal(
        over_time(x.double(), wide), wide(x.double().flatten(0, 1)).unflatten(0, (2, 3))
    )


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 32, 3),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, groups=2),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2),
        nn.Conv2d(32, 32, 3, padding="same"),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.Conv2d(32, 8, 3, padding=1),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 32, 3, padding=1)),
    ],
    ids=str,
)
def test_other_convolutions_stay_as_they_are(conv: nn.Conv2d) -> None:
    x = torch.rand(2, 32, 16, 16).contiguous(memory_format=LAST)
    assert not takes(x, conv)


def test_what_watches_or_transforms_gets_the_plain_layer() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.rand(2, 32, 16, 16).contiguous(memory_format=LAST)
    assert takes(x, conv)
    assert not takes(x.contiguous(), conv)
    assert not takes(x.bfloat16(), conv)
    assert not takes(x[..., :4, :4].contiguous(memory_format=LAST), conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes(x, conv)
    seen: list[bool] = []
    torch.func.vmap(lambda v: (seen.append(takes(v, conv)), v)[1])(x.unsqueeze(0))
    assert seen == [False]
    conv.register_forward_hook(lambda *_: None)
    assert not takes(x, conv)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_memory_is_that_of_the_input_whatever_the_default_dtype(default: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 32, 16, 16).contiguous(memory_format=LAST)
    conv, g = nn.Conv2d(32, 48, 3, padding=1), torch.randn(9, 48, 16, 16)

    def results() -> tuple[Tensor, ...]:
        leaf = x.clone().requires_grad_()
        y = conv3x3(leaf, conv.weight, conv.bias)
        return y, *torch.autograd.grad(y, [leaf, *conv.parameters()], g)

    expected = results()
    torch.set_default_dtype(default)
    try:
        found = results()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))
