"""Weights as coarse as a chip's, to see what that does to a network's answers."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rheobase.layers.folding import fold_norms
from rheobase.measure._evaluating import evaluating

__all__ = ["answers_kept", "round_weights", "rounded"]

_TRIED = 40  # step sizes


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Weights rounded to whole multiples of one step, of ``2**bits - 1`` values around 0.

    The step is the one, of 40 up to the largest weight's, that leaves the smallest squared error.

    Raises:
        ValueError: fewer than 2 bits.

    >>> rounded(torch.tensor([0.9, -1.1, 0.1, 1.0]), bits=2)
    tensor([ 0.9900, -0.9900,  0.0000,  0.9900])
    """
    if bits < 2:
        raise ValueError(f"weights of both signs take at least 2 bits, got {bits}")
    levels = 2 ** (bits - 1) - 1
    best, least = weight, float("inf")
    for share in range(1, _TRIED + 1):
        step = weight.abs().max() * share / (_TRIED * levels)
        found = (weight / step).round().clamp(-levels, levels) * step
        error = float((found - weight).square().sum())
        if error < least:
            best, least = found, error
    return best if weight.any() else weight


def round_weights(net: nn.Module, x: Tensor, bits: int, layers: Iterable[str]) -> nn.Module:
    """A copy of a network with its norms folded away and these layers' weights rounded.

    Args:
        net: the network; stays as it is.
        x: an input, on which the norms behind each layer are found.
        bits: of a weight.
        layers: names of convolutions and linear layers; their biases stay, as currents.
    """
    made = copy.deepcopy(net).eval()
    fold_norms(made, x)
    with torch.no_grad():
        for name in layers:
            layer = made.get_submodule(name)
            assert isinstance(layer.weight, Tensor)
            layer.weight.copy_(rounded(layer.weight, bits))
    return made


def answers_kept(net: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Share of images to which two networks give the same answer."""
    with evaluating(net), evaluating(other):
        same = net(x).mean(0).argmax(1) == other(x).mean(0).argmax(1)
    return float(same.double().mean())
