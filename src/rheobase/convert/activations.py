"""Activations of the ANN as the pipeline sees them: their kind, slope, bound and threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from rheobase.convert.trace import Traced

__all__ = ["Site", "activation_of_call"]

_PLAIN: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, F.relu_: nn.ReLU, torch.relu: nn.ReLU, torch.relu_: nn.ReLU,
    "relu": nn.ReLU, "relu_": nn.ReLU, F.relu6: nn.ReLU6, F.silu: nn.SiLU,
    F.hardswish: nn.Hardswish, F.sigmoid: nn.Sigmoid, torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid, F.tanh: nn.Tanh, torch.tanh: nn.Tanh, "tanh": nn.Tanh,
    F.hardsigmoid: nn.Hardsigmoid, F.mish: nn.Mish, F.selu: nn.SELU, torch.selu: nn.SELU,
    F.softsign: nn.Softsign, F.logsigmoid: nn.LogSigmoid,
}  # fmt: skip


_WITH_NUMBERS: dict[Any, type[nn.Module]] = {
    F.elu: nn.ELU, F.softplus: nn.Softplus, F.celu: nn.CELU, torch.celu: nn.CELU,
}  # fmt: skip


def activation_of_call(traced: Traced, node: fx.Node) -> nn.Module | None:
    """The module that does what a functional call does; None if its bounds are of no activation."""
    if node.target is torch.maximum:
        return nn.ReLU() if _is_zero(traced, node.args[1]) else None
    if node.target in _PLAIN:
        return _PLAIN[node.target]()
    rest, named = node.args[1:], dict(node.kwargs)
    named.pop("inplace", None)
    if node.target in (F.leaky_relu, F.leaky_relu_):
        return nn.LeakyReLU(*rest[:1], **named)  # type: ignore[arg-type]
    if node.target is F.gelu:
        return nn.GELU(**named)  # type: ignore[arg-type]
    if node.target in _WITH_NUMBERS:
        return _WITH_NUMBERS[node.target](*rest, **named)
    low, high = _bounds(node, rest, named)
    if isinstance(low, fx.Node) or isinstance(high, fx.Node) or low is None:
        return None
    if high is None:
        return nn.ReLU() if low == 0.0 else None
    return nn.Hardtanh(float(low), float(high))


def _is_zero(traced: Traced, value: Any) -> bool:
    """Whether the second of two values is a constant 0."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return False
    constant = getattr(traced.module, str(value.target), None)
    return isinstance(constant, Tensor) and not bool(constant.any())


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
    def slope(self) -> float | Tensor:
        """Of its negative side: a number, or one for each channel as ``[C, ...]``."""
        if isinstance(self.activation, nn.PReLU):
            slopes = self.activation.weight.detach().clone()
            if slopes.numel() == 1:
                return slopes.item()
            return slopes.view(-1, *[1] * (len(self.shape) - 1))
        if isinstance(self.activation, nn.RReLU):  # in evaluation
            return 0.5 * float(self.activation.lower + self.activation.upper)
        if isinstance(self.activation, nn.LeakyReLU):
            return float(self.activation.negative_slope)
        return 0.0

    @property
    def learned(self) -> Tensor | None:
        """The threshold that the activation was trained with, or None."""
        value = getattr(self.activation, "threshold", None)
        return value.detach().clone() if isinstance(value, Tensor) else None
