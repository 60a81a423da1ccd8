"""Who changes or counts PyTorch's functions is asked, whatever kernel there is for a layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rheobase.layers import EventConv2d, EventLinear, over_time
from rheobase.layers.lookup import LookupConv2d, LookupLinear
from rheobase.layers.sequential import TimeSequential
from rheobase.neurons import LIF


class Negated(nn.Parameter):
    """A weight that every function of PyTorch sees negated, as adapters add to theirs."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in (F.linear, F.conv2d, torch.conv2d, F.batch_norm, torch.batch_norm):
                args = tuple(-a if isinstance(a, cls) else a for a in args)
                kwargs = {k: -v if isinstance(v, cls) else v for k, v in (kwargs or {}).items()}
            return func(*args, **(kwargs or {}))


def _layers() -> list[tuple[nn.Module, tuple[int, ...]]]:
    images, rows = (2, 3, 32, 8, 8), (2, 3, 32)
    return [
        (nn.Conv2d(32, 32, 3, padding=1), images),
        (nn.Conv2d(32, 32, 1), images),
        (EventConv2d(32, 32, 3), images),
        (LookupConv2d(32, 32, 3), images),
        (EventLinear(32, 16), rows),
        (LookupLinear(32, 16), rows),
    ]


@pytest.mark.parametrize(("layer", "shape"), _layers())
@torch.no_grad()
def test_a_weight_with_functions_of_its_own_has_them(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = (torch.rand(shape) < 0.1).float()
    layer.bias = None
    plain = over_time(x, layer)
    layer.weight = Negated(layer.weight.detach())
    torch.testing.assert_close(over_time(x, layer), -plain)


@torch.no_grad()
def test_a_norms_weight_with_functions_of_its_own_has_them() -> None:
    norm, x = nn.BatchNorm2d(3).eval(), torch.rand(2, 3, 3, 4, 4) * 2
    fired = over_time(x, norm, LIF())
    assert fired.any()
    norm.weight = Negated(norm.weight.detach())
    assert not over_time(x, norm, LIF()).any()


@pytest.mark.parametrize("size", [1, 3])
def test_a_mode_for_functions_sees_convolutions(size: int) -> None:
    seen: list[str] = []

    class Seeing(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    conv, x = nn.Conv2d(32, 32, size, padding=size // 2), torch.rand(2, 3, 32, 8, 8)
    with Seeing():
        y: Tensor = over_time(x, conv)
    assert "conv2d" in seen
    torch.testing.assert_close(y, over_time(x, conv))


@pytest.mark.filterwarnings("ignore:.*jit.trace.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_traces_networks() -> None:
    torch.manual_seed(0)
    net = TimeSequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), LIF(), nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 1), LIF(),
    ).eval()  # fmt: skip
    x = 3.0 * torch.rand(4, 2, 3, 8, 8)
    traced = torch.jit.trace(net, x)
    torch.testing.assert_close(traced(2.0 * x), net(2.0 * x))


def test_tensors_of_which_memory_holds_the_opposite() -> None:
    """As the imaginary part of a conjugate spectrum does."""
    x = torch._neg_view(-3.0 * torch.rand(4, 32, 8, 8)).unflatten(0, (2, 2))
    assert x.is_neg()
    last = x.flatten(0, 1).resolve_neg().neg().contiguous(memory_format=torch.channels_last)
    for layer, given in (
        (nn.Conv2d(32, 32, 1), x),
        (nn.Conv2d(32, 32, 3, padding=1), x),
        (nn.AvgPool2d(2), torch._neg_view(last).unflatten(0, (2, 2))),
        (LIF(), x),
    ):
        torch.testing.assert_close(over_time(given, layer), over_time(x.resolve_neg(), layer))
