"""What the norms share: folding for inference, and seeing the whole sequence."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from rheobase._numbers import NumbersChecked, Size
from rheobase.layers._checks import check_sequence, check_steps
from rheobase.stateful import Stateful

__all__ = ["Foldable", "SequenceNorm", "absorb", "affine_of", "flat"]


class Foldable(NumbersChecked, nn.Module):
    """A norm that evaluation turns into a fixed affine map, which `fold` makes of it for good."""

    @property
    def folded(self) -> bool:
        """Whether `fold` was called."""
        return "folded_scale" in self._buffers

    @abstractmethod
    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift in evaluation: ``[C]``, or ``[T, C]`` where they differ in time."""

    def gain(self) -> Tensor | None:
        """A factor ``[T]`` of the result, where the norm has one."""
        return None

    def fold(self, layer: nn.Module | None = None) -> None:
        """Freeze the norm for inference: parameters and statistics become a scale and a shift.

        Spikes stay the same, up to rounding. What evaluation mode computes is kept, whichever mode
        the norm is in.

        Args:
            layer: the convolution or linear layer whose output this norm takes. Scale and shift go
                into its weight and bias, and only a gain of every step, if any, is left here.

        Raises:
            ValueError: it is folded already; ``layer`` has another number of outputs; scale and
                shift differ from step to step, so no weights can hold them.
            TypeError: ``layer`` is no convolution and no linear layer.
        """
        if self.folded:
            raise ValueError(f"this {type(self).__name__} is folded already, and can be only once")
        with torch.no_grad():
            scale, shift = (tensor.clone() for tensor in self.scale_and_shift())
            gain = self.gain()
            if layer is not None:
                absorb(layer, scale, shift, type(self).__name__)
                scale, shift = torch.ones_like(scale), torch.zeros_like(shift)
        for members in (self._modules, self._parameters, self._buffers):
            members.clear()
        self.register_buffer("folded_scale", scale)
        self.register_buffer("folded_shift", shift)
        self.register_buffer("folded_gain", None if gain is None else gain.detach().clone())


class SequenceNorm(Foldable, Stateful):
    """Base of norms that see the whole sequence ``[T, N, C, ...]``, steps apart.

    Called as they are, or within `rheobase.layers.over_time`, which hands them the sequence. In
    evaluation they stream; one made for T steps then counts them over the calls.

    Args:
        channels: number of channels.
        steps: T, where the norm has something of its own for every step.
    """

    folded_scale: Tensor
    folded_shift: Tensor
    folded_gain: Tensor | None

    def __init__(self, channels: Size, steps: Size | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.steps = steps

    @abstractmethod
    def normalise(self, x: Tensor, start: int) -> Tensor:
        """The norm of ``[T, N, C, L]``, whose first step is number ``start`` of the sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, ...]`` to the same shape and dtype.

        Raises:
            ValueError: another number of channels, or of steps than the norm was made for.
        """
        check_sequence(self, x, self.channels)
        start = self._advance(x.shape[0])
        if not self.folded:
            return self.normalise(flat(x), start).view_as(x).to(x.dtype)
        last = start + x.shape[0]
        y = torch.addcmul(
            _spread(self.folded_shift, x, start, last),
            x,
            _spread(self.folded_scale, x, start, last),
        )
        if self.folded_gain is not None:
            y = y * self.folded_gain[start:last].view(-1, *[1] * (x.dim() - 1))
        return y.to(x.dtype)

    def _advance(self, given: int) -> int:
        """The number of the first step of this call; later steps are counted while streaming."""
        if self.steps is None:
            return 0
        if not self._streams:
            check_steps(self, given, self.steps)
            return 0
        start = 0 if self.carried is None else int(self.carried)
        if start + given > self.steps:
            check_steps(self, start + given, self.steps)
        self.carry(torch.tensor(start + given))
        return start

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        parts = [f"channels={self.channels}"]
        parts += [] if self.steps is None else [f"steps={self.steps}"]
        return ", ".join(parts + ["folded"] * self.folded)


def flat(x: Tensor) -> Tensor:
    """``[T, N, C, ...] -> [T, N, C, L]``, whatever the number of axes behind C."""
    return x.unsqueeze(-1) if x.dim() == 3 else x.flatten(3)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` of a batch norm in evaluation."""
    assert isinstance(norm, _BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _spread(values: Tensor, x: Tensor, start: int, last: int) -> Tensor:
    """``[C]`` or steps start to last of ``[T, C]``, as it broadcasts to ``[T, N, C, ...]``."""
    inner = [1] * (x.dim() - 3)
    if values.dim() == 1:
        return values.view(-1, *inner)
    return values[start:last].view(last - start, 1, -1, *inner)


def absorb(layer: nn.Module, scale: Tensor, shift: Tensor, norm: str) -> None:
    """Put an affine map of a convolution's or linear layer's output into its weight and bias.

    Raises:
        TypeError: the layer is another.
        ValueError: the map differs from step to step, or has another number of channels.
    """
    if not isinstance(layer, _ConvNd | nn.Linear) or isinstance(layer, _ConvTransposeNd):
        raise TypeError(
            f"{norm} folds into a convolution or a linear layer, not {type(layer).__name__}; "
            "fold() without a layer keeps the scale and the shift in the norm"
        )
    if scale.dim() > 1:
        raise ValueError(
            f"{norm} differs from step to step, so no one set of weights can hold it; fold() "
            "without a layer keeps a scale and a shift for each step in the norm"
        )
    if layer.weight.shape[0] != scale.numel():
        raise ValueError(
            f"{norm} has {scale.numel()} channels, the layer {layer.weight.shape[0]} outputs"
        )
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    bias = shift if layer.bias is None else layer.bias * scale + shift
    layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
