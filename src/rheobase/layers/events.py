"""Layers for inputs that are mostly zeros: event streams, and spikes of quiet neurons."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.kept import kept
from rheobase.ops.events import event_conv2d, event_linear, matrices_by_place, rows_by_input

__all__ = ["EventConv2d", "EventLinear", "PlainConv2d", "can_be_event_driven"]


class EventLinear(nn.Linear):
    """`nn.Linear` that reads only the weights of inputs that are not 0, forward and backward.

    The same function, parameters and gradients, up to the rounding of sums in another order. For
    sequences of events, as spoken digits in 700 channels, of which few are active at a step; calls
    with more than a fifth of the input active take the dense product by themselves.

    Frozen weights (``requires_grad`` off, as `rheobase.optimize` leaves them) are kept laid out by
    input until they change. A change of those through ``weight.data`` nobody sees: change the
    parameter itself, as in ``with torch.no_grad(): layer.weight.copy_(new)``, or load a state dict.

    >>> import torch
    >>> layer = EventLinear(700, 128)
    >>> x = (torch.rand(100, 8, 700) < 0.05).float()
    >>> torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return event_linear(
            x, self.weight, self.bias, kept(self, "rows", self.weight, rows_by_input)
        )


class PlainConv2d(nn.Conv2d):
    """What kernels of ours can compute: one group, no dilation, padding by a number of zeros.

    Raises:
        ValueError: several groups, a dilation, or another padding.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        if not can_be_event_driven(self):
            raise ValueError(
                f"{type(self).__name__} takes groups=1, dilation=1 and zero padding given as "
                "numbers; use nn.Conv2d for others"
            )


class EventConv2d(PlainConv2d):
    """`nn.Conv2d` that in inference reads only the weights of inputs that are not 0.

    The same function and parameters, up to the rounding of sums in another order. For one image at
    a time whose spikes are few; denser input and training take the dense convolution by themselves.
    Frozen weights are kept laid out as those of `EventLinear`: change none through ``.data``.

    Raises:
        ValueError: several groups, a dilation, or padding by other than a number of zeros.

    >>> import torch
    >>> layer, x = EventConv2d(8, 16, 3, padding=1), (torch.rand(1, 8, 9, 9) < 0.1).float()
    >>> with torch.no_grad():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, O, H', W']``."""
        matrices = kept(self, "matrices", self.weight, matrices_by_place)
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
