"""Layers with weights of 8 bits, for inputs that are spikes or counts of them: for inference."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase._numbers import Positive, numbers_checked
from rheobase.layers.kept import kept
from rheobase.ops import int8
from rheobase.ops.eager import is_seen_by_nobody
from rheobase.ops.fits import fits

__all__ = ["Int8Conv2d", "Int8Linear", "SpikeAvgPool2d", "SpikeMaxPool2d", "spike_pool"]


class _Int8(nn.Module):
    """What a convolution and a linear layer share, which is one with a kernel of 1x1.

    Attributes:
        weight: int8, an output's multiples of its scale.
        scale: ``[O]``, an output's unit of weight.
        step: the input's unit; it is rounded to multiples 0 to 255 of it. What comes as uint8 is
            such multiples.
        sparse: whether silent inputs are skipped.
    """

    # Those of `nn.Conv2d`, or what stands for them in an `nn.Linear`.
    weight: Any
    bias: Any
    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1
    scale: Tensor

    def _take(self, weight: Tensor, bias: Tensor | None, step: float, sparse: bool) -> None:
        values, scale = int8.quantised(weight)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.register_buffer("scale", scale)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.step = step
        self.sparse = sparse

    def _convolve(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, O, H', W']``."""
        x = int8.to_bytes(x, self.step).contiguous(memory_format=torch.channels_last)
        scale = self.scale if self.step == 1.0 else self.scale * self.step
        places: tuple[Any, ...] = self.stride, self.padding
        with torch.no_grad():
            if self.sparse:
                y = int8.event_conv2d(x, self._laid_out(True), scale, self.bias, *places)
                if y is not None:
                    return y
            places = *places, self.dilation, self.groups
            return int8.dense_conv2d(x, self._laid_out(False), scale, self.bias, *places)

    def _laid_out(self, sparse: bool) -> Tensor:
        """The weights as the kernels read them."""
        make = _rows if sparse else self._packed
        made = kept(self, make.__name__, self.weight, make)
        return make(self.weight) if made is None else made

    def _packed(self, weight: Tensor) -> Tensor:
        places = self.stride, self.padding, self.dilation, self.groups
        return int8.packed(_window(weight), self.scale, *places)

    def _takes_bytes(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.uint8, torch.float32)
            and self.scale.dtype == torch.float32
            and int8.has_byte_products()
            and is_seen_by_nobody(x)
            and x.numel() > 0
            and fits(x, self.weight, self.padding, self.groups)
        )

    def _in_floats(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias for where there is no kernel: other devices, traced calls."""
        dtype = self.scale.dtype if x.dtype == torch.uint8 else x.dtype
        x = int8.to_bytes(x, self.step).to(dtype) * self.step
        scale = self.scale.to(dtype).view(-1, *[1] * (self.weight.dim() - 1))
        return x, self.weight.to(dtype) * scale, None if self.bias is None else self.bias.to(dtype)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        way = "events" if self.sparse else "dense"
        return f"{super().extra_repr()}, step={self.step:g}, {way}"


_PLACES = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
)  # fmt: skip


def _window(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 4 else weight[:, :, None, None]


def _rows(weight: Tensor) -> Tensor:
    return int8.weight_rows(_window(weight))


@numbers_checked
class Int8Conv2d(_Int8, nn.Conv2d):
    """What an `nn.Conv2d` computes of spikes, with weights rounded to 8 bits an output.

    Sums are exact in whole numbers; only the weights are rounded, to 255 steps between plus and
    minus an output's largest. Inputs are multiples of ``step`` from 0 to 255, as floats or as
    uint8 multiples; others are rounded to those. Without gradients.

    Args:
        conv: the layer, with zero padding given as numbers.
        step: the input's unit: 1 for spikes, 1/4 for averages of 2x2.
        sparse: skip silent inputs; for few spikes, without groups or dilation.

    Raises:
        ValueError: another kind of padding, or events with groups or a dilation.

    >>> _ = torch.manual_seed(0)
    >>> conv, spikes = nn.Conv2d(8, 16, 3, padding=1), (torch.rand(1, 8, 9, 9) < 0.1).float()
    >>> y = Int8Conv2d(conv)(spikes)
    >>> bool((y - conv(spikes)).abs().max() < 0.01)
    True
    """

    def __init__(self, conv: nn.Conv2d, step: Positive = 1.0, sparse: bool = False) -> None:
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(
                f"Int8Conv2d takes zero padding given as numbers, not {conv.padding!r} "
                f"{conv.padding_mode}"
            )
        if sparse and (conv.groups > 1 or max(conv.dilation) > 1):
            raise ValueError(
                "sparse=True is for convolutions without groups and dilation, this one has "
                f"groups={conv.groups}, dilation={conv.dilation}; leave it at False"
            )
        same: dict[str, Any] = {name: getattr(conv, name) for name in _PLACES}
        super().__init__(**same, bias=conv.bias is not None, device="meta")
        self._take(conv.weight, conv.bias, step, sparse)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, O, H', W']``."""
        if self._takes_bytes(input):
            return self._convolve(input)
        y: Tensor = self._conv_forward(*self._in_floats(input))
        return y


@numbers_checked
class Int8Linear(_Int8, nn.Linear):
    """What an `nn.Linear` computes of spikes, with weights rounded to 8 bits an output.

    See `Int8Conv2d`.

    >>> _ = torch.manual_seed(0)
    >>> linear, spikes = nn.Linear(64, 8), (torch.rand(5, 64) < 0.1).float()
    >>> bool((Int8Linear(linear)(spikes) - linear(spikes)).abs().max() < 0.01)
    True
    """

    def __init__(self, linear: nn.Linear, step: Positive = 1.0, sparse: bool = False) -> None:
        bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias, device="meta")
        self._take(linear.weight, linear.bias, step, sparse)

    def forward(self, input: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        if not self._takes_bytes(input):
            return F.linear(*self._in_floats(input))
        # All rows as the pixels of one image, for which oneDNN has the faster way.
        image = input.reshape(1, -1, 1, input.shape[-1]).permute(0, 3, 1, 2)
        y = self._convolve(image).permute(0, 2, 3, 1)
        return y.reshape(*input.shape[:-1], y.shape[-1])


class SpikeAvgPool2d(nn.AvgPool2d):
    """`nn.AvgPool2d` of windows side by side; of bytes it gives the sums, also as bytes.

    The layer behind it then takes them for multiples of a step that is one over the window's size.

    >>> spikes = torch.tensor([[[[1, 0], [1, 1]]]], dtype=torch.uint8)
    >>> SpikeAvgPool2d(2)(spikes).item(), SpikeAvgPool2d(2)(spikes.float()).item()
    (3, 0.75)
    """

    @property
    def window(self) -> int:
        """How many values an average is of."""
        down, right = _pair(self.kernel_size)
        return down * right

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, H / h, W / w]``."""
        if input.dtype != torch.uint8:
            return super().forward(input)
        return reduce(torch.add, _places(input, self.kernel_size))


class SpikeMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` of windows side by side, which takes bytes in any memory order.

    PyTorch 2.13 refuses them channels last where an image has more than 255 values.

    >>> SpikeMaxPool2d(2)(torch.tensor([[[[1, 0], [1, 1]]]], dtype=torch.uint8)).item()
    1
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, H / h, W / w]``."""
        if input.dtype != torch.uint8:
            y: Tensor = super().forward(input)
            return y
        return reduce(torch.maximum, _places(input, self.kernel_size))


def spike_pool(pool: nn.Module) -> type[nn.Module] | None:
    """The class for bytes that can stand for this pooling layer's, if there is one."""
    kinds: dict[type, type[nn.Module]] = {
        nn.AvgPool2d: SpikeAvgPool2d,
        nn.MaxPool2d: SpikeMaxPool2d,
    }
    if type(pool) not in kinds:
        return None
    assert isinstance(pool, nn.AvgPool2d | nn.MaxPool2d)
    side_by_side = _pair(pool.kernel_size) == _pair(pool.stride) and _pair(pool.padding) == (0, 0)
    plain = getattr(pool, "divisor_override", None) is None and not pool.ceil_mode
    if isinstance(pool, nn.MaxPool2d):
        plain = plain and _pair(pool.dilation) == (1, 1) and not pool.return_indices
    return kinds[type(pool)] if side_by_side and plain else None


def _places(x: Tensor, size: int | tuple[int, ...]) -> list[Tensor]:
    """For each place of a window, what lies there in every window."""
    down, right = _pair(size)
    high, wide = x.shape[-2] // down * down, x.shape[-1] // right * right
    return [x[..., i:high:down, j:wide:right] for i in range(down) for j in range(right)]


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
