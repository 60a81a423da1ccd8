"""3x3 convolution by Winograd's transforms: the direct sum, to the rounding that is stated."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.layers import over_time
from rheobase.layers.optimize import optimize
from rheobase.layers.sequential import TimeSequential
from rheobase.ops import winograd
from rheobase.ops.winograd import conv3x3, takes
from rheobase.ops.winograd.op import _dtypes

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


@pytest.mark.parametrize("autocast", [True, False])
def test_in_bfloat16_it_is_no_less_exact_than_pytorch(autocast: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 64, 17, 12).bfloat16().contiguous(memory_format=LAST)
    values = [x, torch.randn(48, 64, 3, 3) / 24, torch.randn(48)]
    if not autocast:
        values = [v.bfloat16() for v in values]
    g = torch.randn(16, 48, 17, 12).bfloat16()
    exact = [v.double().requires_grad_() for v in values]
    expected = F.conv2d(*exact, padding=1)
    wanted = expected, *torch.autograd.grad(expected, exact, g.double())
    errors = []
    for run in (conv3x3, lambda *given: F.conv2d(*given, padding=1)):
        given = [v.clone().requires_grad_() for v in values]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = run(*given)
        results = y, *torch.autograd.grad(y, given, g)
        assert y.dtype == torch.bfloat16
        assert [r.dtype for r in results[1:]] == [v.dtype for v in values]
        errors.append([_error(r, w) for r, w in zip(results, wanted, strict=True)])
    # Rounding a result is all that is left, where PyTorch rounds weights too.
    assert all(ours < 1.1 * theirs for ours, theirs in zip(*errors, strict=True)), errors


def test_bfloat16_is_left_to_processors_that_multiply_tiles_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.rand(2, 32, 16, 16).contiguous(memory_format=LAST)
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda amx=amx: {"amx_bf16": amx})
        _dtypes.cache_clear()
        assert takes(x, conv)
        assert takes(x.bfloat16(), copy.deepcopy(conv).bfloat16()) is not amx
        with torch.autocast("cpu", torch.bfloat16):
            assert takes(x, conv) is not amx
    _dtypes.cache_clear()


def test_an_image_gives_the_same_whatever_comes_with_it() -> None:
    torch.manual_seed(0)
    x = torch.rand(11, 40, 13, 17).contiguous(memory_format=LAST)
    weight = torch.randn(36, 40, 3, 3)
    y = conv3x3(x, weight, None)
    for first, last in ((0, 1), (3, 6), (4, 11)):
        assert torch.equal(y[first:last], conv3x3(x[first:last], weight, None))


def test_layers_over_time_use_it_and_not_in_float64() -> None:
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
    with torch.autocast("cpu", torch.float16):
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


def test_in_a_stream_a_weight_is_transformed_once_until_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.rand(2, 1, 32, 8, 8)
    made: list[Tensor] = []
    spread = winograd.spread
    monkeypatch.setattr(winograd, "spread", lambda w: made.append(w) or spread(w))

    def errors(net: nn.Module) -> list[float]:
        exact = F.conv2d(x.flatten(0, 1).double(), *_exact(net.get_submodule("0")), padding=1)
        return [_error(net(x[t : t + 1])[0, 0], exact[t]) for t in range(2)]

    plain = TimeSequential(conv).requires_grad_(False)
    fast = optimize(plain, x, stream=True).net
    made.clear()
    with torch.no_grad():
        assert max(errors(plain)) < 3e-6 and not made  # may change through ``.data``, unseen
        assert max(errors(fast)) < 3e-6 and len(made) <= 1
        made.clear()
        fast.get_submodule("0").weight.mul_(-2.0)
        assert max(errors(fast)) < 3e-6 and len(made) == 1
        fast.load_state_dict(plain.state_dict())
        assert max(errors(fast)) < 3e-6 and len(made) == 2
    assert max(errors(fast)) < 3e-6 and len(made) == 2  # with gradients nothing is kept
    with torch.no_grad():
        assert max(errors(fast)) < 3e-6 and len(made) == 3


def _exact(conv: nn.Conv2d) -> list[Tensor]:
    return [parameter.double() for parameter in conv.parameters()]
