"""Layers for inputs that are mostly zeros: event streams, and spikes of quiet neurons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rheobase.ops.events import event_conv2d, event_linear, matrices_by_place, rows_by_input

__all__ = ["EventConv2d", "EventLinear"]


class EventLinear(nn.Linear):
    """`nn.Linear` that reads only the weights of inputs that are not 0, forward and backward.

    The same function, parameters and gradients, up to the rounding of sums in another order. For
    sequences of events, as spoken digits in 700 channels, of which few are active at a step; calls
    with more than a fifth of the input active take the dense product by themselves.

    >>> import torch
    >>> layer = EventLinear(700, 128)
    >>> x = (torch.rand(100, 8, 700) < 0.05).float()
    >>> torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return event_linear(x, self.weight, self.bias, _laid_out(self, rows_by_input))


class EventConv2d(nn.Conv2d):
    """`nn.Conv2d` that in inference reads only the weights of inputs that are not 0.

    The same function and parameters, up to the rounding of sums in another order. For one image at
    a time whose spikes are few; denser input and training take the dense convolution by themselves.

    Raises:
        ValueError: several groups, a dilation, or padding by other than a number of zeros.

    >>> import torch
    >>> layer, x = EventConv2d(8, 16, 3, padding=1), (torch.rand(1, 8, 9, 9) < 0.1).float()
    >>> with torch.no_grad():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        if not can_be_event_driven(self):
            raise ValueError(
                "EventConv2d takes groups=1, dilation=1 and zero padding given as numbers; use "
                "nn.Conv2d for others"
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, O, H', W']``."""
        matrices = _laid_out(self, matrices_by_place)
        down, right = self.stride
        high, wide = map(int, self.padding)
        return event_conv2d(x, self.weight, self.bias, (down, right), (high, wide), matrices)


def can_be_event_driven(conv: nn.Conv2d) -> bool:
    """Whether `EventConv2d` can compute what this convolution does."""
    return (
        conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def _laid_out(layer: nn.Linear | nn.Conv2d, lay_out: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The layer's weight as the kernels read it, kept as long as the weight stays the same.

    A batch of one would take longer over laying it out than over the product. None where the
    weight is being trained, or may change unseen.
    """
    weight = layer.weight
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or weight.is_inference():
        return None
    now = (weight.data_ptr(), weight._version, weight.dtype)
    kept: tuple[object, Tensor] | None = layer.__dict__.get("_laid_out")
    if kept is None or kept[0] != now:
        # No buffer: it is no part of the weights.
        kept = layer.__dict__["_laid_out"] = (now, lay_out(weight))
    return kept[1]
