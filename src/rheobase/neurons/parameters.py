"""What neurons with learnt parameters share: their shapes, and checks of their domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rheobase.surrogate.base import is_at_hand

__all__ = ["channel_shape", "logit", "per_channel", "positive", "sharing", "wrong_steps"]


def per_channel(parameter: Tensor, x: Tensor, owner: str) -> Tensor:
    """A parameter of the layer ``[]``, or of each channel ``[C]``, made to broadcast to ``x``.

    ``[T, C]`` (each step and channel) becomes ``[T, 1, C, 1, ...]``.

    Raises:
        ValueError: the channels of ``x``, ``[T, N, C, ...]``, are not those of the parameter.

    >>> per_channel(torch.zeros(3), torch.zeros(4, 2, 3, 8, 8), "PLIF").shape
    torch.Size([1, 3, 1, 1])
    """
    if parameter.dim() == 0:
        return parameter
    return parameter.reshape(*parameter.shape[:-1], *channel_shape(parameter, x, owner))


def channel_shape(parameter: Tensor, x: Tensor, owner: str) -> tuple[int, ...]:
    """``(1, C, 1, ...)``: of one step of `per_channel`, which see."""
    channels = parameter.shape[-1]
    if x.dim() < 3 or x.shape[2] != channels:
        raise ValueError(
            f"{owner} has {channels} channels, input is [T, N, C, ...] = {list(x.shape)}"
        )
    return 1, channels, *[1] * (x.dim() - 3)


def positive(parameter: Tensor, owner: str, name: str) -> Tensor:
    """The parameter itself, checked to be above 0 where that costs no wait for a device.

    Raises:
        ValueError: a value is 0, negative or not a number.
    """
    if is_at_hand(parameter) and not (least := parameter.detach().min().item()) > 0.0:
        raise ValueError(
            f"{owner} learnt a {name} of {least:g}, which must stay above 0; lower its learning "
            "rate, or clamp it after each step"
        )
    return parameter


def logit(value: float, shape: tuple[int, ...], owner: str, name: str) -> nn.Parameter:
    """A parameter that the sigmoid maps to ``value``.

    Raises:
        ValueError: ``value`` is not in (0, 1).
    """
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"{owner} learns {name} through a sigmoid: it must be in (0, 1), got {value}"
        )
    return nn.Parameter(torch.full(shape, math.log(value / (1.0 - value))))


def wrong_steps(owner: str, steps: int, x: Tensor) -> str:
    """What to say when a neuron made for ``steps`` steps is given another number of them."""
    return f"{owner} was made for T={steps} and given T={x.shape[0]}; make it with T={x.shape[0]}"


def sharing(parameter: Tensor) -> str:
    """Who has one of it, for ``repr``: the layer, or each of so many channels."""
    return "layer" if parameter.dim() == 0 else f"channel ({parameter.shape[-1]})"
