"""Layers for spikes: the sums of four weights are looked up, not computed."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.events import PlainConv2d
from rheobase.layers.kept import kept
from rheobase.ops.lookup import lookup_conv2d, tables_of, takes_spikes

__all__ = ["LookupConv2d", "LookupLinear"]


class LookupLinear(nn.Linear):
    """`nn.Linear` that in inference looks up the sum of the weights of every four spikes.

    The same function and parameters, up to the rounding of sums in another order. Inputs with
    other values than 0 and 1, and training, take the dense product by themselves. The tables of
    sums take four times the weights' memory.

    Tables of frozen weights (``requires_grad`` off, as `rheobase.optimize` leaves them) are kept
    until those change. A change through ``weight.data`` nobody sees: change the parameter itself,
    as in ``with torch.no_grad(): layer.weight.copy_(new)``, or load a state dict.

    >>> import torch
    >>> layer, x = LookupLinear(64, 32), (torch.rand(5, 64) < 0.5).float()
    >>> with torch.no_grad():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        if takes_spikes(input, self.weight):
            tables = _tables(self, self.weight[:, :, None, None])
            # All rows as the pixels of one image.
            image = input.reshape(1, -1, 1, input.shape[-1]).permute(0, 3, 1, 2)
            places = self.out_features, 1, (1, 1), (0, 0)
            if (y := lookup_conv2d(image, tables, self.bias, *places)) is not None:
                return y.permute(0, 2, 3, 1).reshape(*input.shape[:-1], self.out_features)
        return super().forward(input.to(self.weight.dtype))


class LookupConv2d(PlainConv2d):
    """`nn.Conv2d` that in inference looks up the sum of the weights of every four spikes.

    The same function and parameters, up to the rounding of sums in another order. Inputs with
    other values than 0 and 1, and training, take the dense convolution by themselves. The tables
    of sums take four times the weights' memory.
    They are kept as those of `LookupLinear`: change no weight through ``.data``.

    Raises:
        ValueError: several groups, a dilation, or padding by other than a number of zeros.

    >>> import torch
    >>> layer, x = LookupConv2d(8, 16, 3, padding=1), (torch.rand(1, 8, 9, 9) < 0.5).float()
    >>> with torch.no_grad():
    ...     y = layer(x)
    >>> torch.allclose(y, layer(x), atol=1e-5)
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, O, H', W']``."""
        down, right = self.stride
        high, wide = map(int, self.padding)
        if takes_spikes(input, self.weight, (high, wide)):
            tables = _tables(self, self.weight)
            places = self.out_channels, self.kernel_size[1], (down, right), (high, wide)
            if (y := lookup_conv2d(input, tables, self.bias, *places)) is not None:
                return y
        return super().forward(input.to(self.weight.dtype))


def _tables(layer: nn.Linear | nn.Conv2d, weight: Tensor) -> Tensor:
    made = kept(layer, "tables", layer.weight, lambda _: tables_of(weight))
    return tables_of(weight) if made is None else made
