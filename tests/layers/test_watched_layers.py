"""Who changes or counts PyTorch's functions is asked, whatever kernel there is for a layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rheobase.layers import EventConv2d, EventLinear, over_time
from rheobase.layers.lookup import LookupConv2d, LookupLinear
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
