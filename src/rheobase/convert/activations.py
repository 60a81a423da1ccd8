"""Activations of the ANN as the pipeline sees them: their kind, slope, bound and threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

__all__ = ["Site", "activation_of_call"]

_PLAIN: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, F.relu_: nn.ReLU, torch.relu: nn.ReLU, torch.relu_: nn.ReLU,
    "relu": nn.ReLU, "relu_": nn.ReLU, F.relu6: nn.ReLU6, F.silu: nn.SiLU,
    F.hardswish: nn.Hardswish, F.sigmoid: nn.Sigmoid, torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid, F.tanh: nn.Tanh, torch.tanh: nn.Tanh, "tanh": nn.Tanh,
    F.hardsigmoid: nn.Hardsigmoid, F.mish: nn.Mish,
}  # fmt: skip


def activation_of_call(node: fx.Node) -> nn.Module | None:
    """The module that does what a functional call does; None if its bounds are of no activation."""
    if node.target in _PLAIN:
        return _PLAIN[node.target]()
    rest, named = node.args[1:], dict(node.kwargs)
    named.pop("inplace", None)
    if node.target in (F.leaky_relu, F.leaky_relu_):
        return nn.LeakyReLU(*rest[:1], **named)  # type: ignore[arg-type]
    if node.target is F.gelu:
        return nn.GELU(**named)  # type: ignore[arg-type]
    if node.target in (F.elu, F.softplus):
        return (nn.ELU if node.target is F.elu else nn.Softplus)(*rest, **named)  # type: ignore[arg-type]
    low, high = _bounds(node, rest, named)
    if low != 0.0 or isinstance(high, fx.Node):
        return None
    return nn.ReLU() if high is None else nn.Hardtanh(0.0, float(high))


def _bounds(node: fx.Node, rest: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """The lower and upper bound of a clamp or hardtanh call."""
    hardtanh = node.target in (F.hardtanh, F.hardtanh_)
    low, high = (-1.0, 1.0) if hardtanh else (None, None)
    low = named.get("min_val", named.get("min", rest[0] if rest else low))
    high = named.get("max_val", named.get("max", rest[1] if len(rest) > 1 else high))
    return low, high


@dataclass
class Site:
    """An activation of the ANN, to be replaced by a spiking neuron.

    Attributes:
        name: its module's name in the graph, which is that in the network where it was a module.
        kind: one of `rheobase.convert.ACTIVATIONS`.
        line: where it was written.
        activation: the module.
        shape: of one value, ``[C, ...]``, without the batch.
    """

    name: str
    kind: str
    line: str
    activation: nn.Module
    shape: tuple[int, ...] = ()

    @property
    def bound(self) -> float | None:
        """The largest value it gives, or None."""
        if isinstance(self.activation, nn.Hardtanh):  # ReLU6 is one
            return float(self.activation.max_val)
        return None

    @property
    def slope(self) -> float:
        """Of its negative side."""
        if isinstance(self.activation, nn.LeakyReLU):
            return float(self.activation.negative_slope)
        return 0.0

    @property
    def learned(self) -> Tensor | None:
        """The threshold that the activation was trained with, or None."""
        value = getattr(self.activation, "threshold", None)
        return value.detach().clone() if isinstance(value, Tensor) else None
