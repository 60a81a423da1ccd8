"""Which inputs of a weighted layer meet which outputs: sizes alone, exact to the last synapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Connections", "each_axis", "of_convolution", "of_linear"]


@dataclass(frozen=True)
class Connections:
    """The synapses of a convolution or linear layer, for one image at one time step.

    A linear layer is a convolution with a window of one at each of its positions (tokens).

    Attributes:
        inputs: shape of what comes in, channels first: ``(C, H, W)``, or ``(features, tokens)``.
        outputs: shape of what goes out, channels first.
        kernel: window along each axis of positions.
        stride: of the window.
        padding: zeros before each axis.
        dilation: of the window.
        groups: that share no synapse.
        bias: whether each output has one.

    >>> conv = Connections((2, 8, 8), (4, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, True)
    >>> conv.weights, conv.synapses, conv.fan_in
    (72, 3872, 18)
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False

    @property
    def weights(self) -> int:
        """Weights without biases: what is stored where synapses share them."""
        return self.outputs[0] * (self.inputs[0] // self.groups) * math.prod(self.kernel)

    @property
    def synapses(self) -> int:
        """Pairs of an input and an output that are connected; zero padding has none."""
        pairs = math.prod(int(self.reach(axis).sum()) for axis in range(len(self.kernel)))
        return pairs * self.outputs[0] * (self.inputs[0] // self.groups)

    @property
    def pairs(self) -> int:
        """Pairs of an input and an output: the synapses if all were connected."""
        return math.prod(self.inputs) * math.prod(self.outputs)

    @property
    def fan_in(self) -> int:
        """Inputs that an output in the middle has."""
        inside = zip(self.kernel, self.inputs[1:], strict=True)
        return self.inputs[0] // self.groups * math.prod(min(k, size) for k, size in inside)

    def reach(self, axis: int) -> Tensor:
        """How many output positions along an axis each input position is seen from, ``[size]``."""
        outs = torch.arange(self.outputs[1 + axis]) * self.stride[axis] - self.padding[axis]
        taps = torch.arange(self.kernel[axis]) * self.dilation[axis]
        seen = (outs[:, None] + taps).flatten()
        size = self.inputs[1 + axis]
        return torch.bincount(seen[(seen >= 0) & (seen < size)], minlength=size)

    def events(self, nonzero: Tensor) -> float:
        """Synapses that inputs other than zero reach.

        Args:
            nonzero: how many of them there were at each position, ``inputs[1:]``.
        """
        reached = nonzero.double()
        for axis in range(len(self.kernel)):
            shape = [-1 if axis == other else 1 for other in range(len(self.kernel))]
            reached = reached * self.reach(axis).view(shape)
        return reached.sum().item() * (self.outputs[0] // self.groups)


def of_convolution(
    args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> tuple[Connections, Tensor]:
    """The connections of a call of `torch.conv2d` (or 1d, 3d), and nonzero inputs by position."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given |= dict(zip(names, args, strict=False)) | dict(kwargs)
    x, weight = given["input"], given["weight"]
    axes = weight.dim() - 2
    kernel, dilation = tuple(weight.shape[2:]), each_axis(given["dilation"], axes)
    padding = given["padding"]
    if padding == "same":  # the odd zero stands behind
        padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    elif padding == "valid":
        padding = 0
    connections = Connections(
        tuple(x.shape[-axes - 1 :]),
        tuple(out.shape[-axes - 1 :]),
        kernel,
        each_axis(given["stride"], axes),
        each_axis(padding, axes),
        dilation,
        given["groups"],
        given["bias"] is not None,
    )
    others = tuple(range(x.dim() - axes))
    return connections, (x != 0).sum(others).cpu()


def of_linear(weight: Tensor, bias: Tensor | None) -> Connections:
    """The connections of ``F.linear`` at one token."""
    outputs, features = weight.shape
    one = (1,)
    return Connections((features, 1), (outputs, 1), one, one, (0,), one, 1, bias is not None)


def each_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """A number for each axis, of one for all or of as many."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) if len(value) == axes else tuple(value) * axes
