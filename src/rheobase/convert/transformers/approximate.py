"""STA: norms and activations written out as hidden layers of ReLUs, and its softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from rheobase.convert.kinds import KINDS
from rheobase.convert.recipe import Recipe
from rheobase.convert.trace import Traced
from rheobase.convert.transformers.approximators import (
    INVERSE_ROOT,
    ReLUApproximator,
    approximated_softmax,
)
from rheobase.convert.transformers.attention import masked_softmax, without_later_keys
from rheobase.convert.transformers.operands import Encode, HiddenUnits
from rheobase.convert.transformers.writer import Writer, write_out

__all__ = ["write_out_functions"]

_ONE_VARIABLE = (
    "gelu", "silu", "sigmoid", "tanh", "hardswish", "mish", "softplus", "selu", "softsign",
    "hardsigmoid",
)  # fmt: skip


class _ToUnits(nn.Module):
    """What charges the hidden units of an approximator."""

    conversion_kind = "weighted"

    def __init__(self, approximator: ReLUApproximator, added: float) -> None:
        super().__init__()
        self.approximator = approximator
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """``[...]`` to ``[..., units]``."""
        return self.approximator.hidden(x + self.added)


class _FromUnits(nn.Module):
    """What an approximator makes of its hidden units."""

    conversion_kind = "weighted"

    def __init__(self, approximator: ReLUApproximator) -> None:
        super().__init__()
        self.approximator = approximator

    def forward(self, h: Tensor) -> Tensor:
        """``[..., units]`` to ``[...]``."""
        return self.approximator.read(h)


class _Centred(nn.Module):
    """A value without its mean over the last ``axes`` axes."""

    conversion_kind = "weighted"

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = tuple(range(-axes, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x - x.mean(self.axes, keepdim=True)


class _ScaledAndShifted(nn.Module):
    """The weights of a layer norm alone."""

    conversion_kind = "weighted"

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = None if norm.bias is None else nn.Parameter(norm.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        y = x * self.weight
        return y if self.bias is None else y + self.bias


def write_out_functions(traced: Traced, _: Recipe | None = None) -> None:
    """Write activations and layer norms as hidden layers of ReLUs, which then spike, in place.

    A norm is the product of what is centred and the inverse root of its variance, encoded before
    its weights, as in the released code. A softmax is approximated, and stays one operation.

    Raises:
        ValueError: a softmax over another axis than the last or with a mask of its own, or a norm
            that is no module (named, with its line).
    """
    for kind in _ONE_VARIABLE:
        write_out(traced, kind, _one_variable)
    write_out(traced, "layer_norm", _layer_norm)
    write_out(traced, "softmax", _softmax)
    traced.graph.lint()
    traced.module.recompile()


def _one_variable(w: Writer, module: nn.Module, x: fx.Proxy) -> fx.Proxy:
    """64 units from -8 to 8, where nearly all of what meets a transformer's activation lies."""
    return _units(w, ReLUApproximator(module, -8.0, 8.0, 64), x)


def _units(w: Writer, approximator: ReLUApproximator, x: fx.Proxy, added: float = 0.0) -> fx.Proxy:
    charged = w.module("to_units", _ToUnits(approximator, added), x)
    return w.module(
        "from_units", _FromUnits(approximator), w.module("units", HiddenUnits(), charged)
    )


def _layer_norm(w: Writer, norm: nn.Module | None, x: fx.Proxy, *given: Any, **named: Any) -> Any:
    if not isinstance(norm, nn.LayerNorm):
        w.refuse("calls F.layer_norm, not an nn.LayerNorm")
    axes = len(norm.normalized_shape)
    centred = w.module("centred", _Centred(axes), x)
    squares = w.function(torch.mul, centred, centred)
    variance = w.function(torch.mean, squares, tuple(range(-axes, 0)), True)
    inverse = _units(w, INVERSE_ROOT, variance, norm.eps)
    normed = w.module("encode", Encode("layer_norm"), w.function(torch.mul, centred, inverse))
    if norm.weight is None:
        return normed
    return w.module("scaled", _ScaledAndShifted(norm), normed)


def _softmax(
    w: Writer, module: nn.Module | None, scores: fx.Proxy, *given: Any, **named: Any
) -> Any:
    if w.node.target is masked_softmax:
        mask = named.get("mask", given[0] if given else None)
        causal = named.get("causal", given[1] if len(given) > 1 else False)
    else:
        mask, causal = None, False
        dim = module.dim if isinstance(module, nn.Softmax) else named.get("dim", *given[:1])
        if dim != -1:
            w.refuse("is a softmax over another axis than the last")
    if mask is not None:
        w.refuse("is a softmax with a mask of its own")
    return w.function(causal_softmax if causal else approximated_softmax, scores)


def causal_softmax(scores: Tensor) -> Tensor:
    """The approximated softmax in which no query attends to a later key."""
    return approximated_softmax(without_later_keys(scores, -1e9))


KINDS[approximated_softmax] = KINDS[causal_softmax] = "softmax"
