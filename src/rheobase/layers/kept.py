"""What a layer derives from frozen weights, kept as long as they stay the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["keep", "keeps", "kept"]


class _Kept(dict[str, tuple[object, Tensor]]):
    """No part of the layer's state: neither copied nor saved with it."""

    def __deepcopy__(self, memo: object) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


def keep(layer: nn.Module) -> None:
    """Let what follows from a layer's weights be kept that is not of a kind which does so itself.

    `rheobase.optimize` asks for it, in networks that it makes for streams.
    """
    layer.__dict__.setdefault("_rheobase_kept", _Kept())


def keeps(layer: nn.Module) -> bool:
    """Whether `keep` was asked for."""
    return "_rheobase_kept" in layer.__dict__


def kept(
    layer: nn.Module, name: str, weight: Tensor, make: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """``make(weight)``, made anew only when the weight has changed.

    Laying weights out for a batch of one would take longer than the product with them. Only of
    frozen weights (``requires_grad`` off, as `rheobase.optimize` leaves them) is anything kept:
    those that learn are often changed through ``weight.data``, of which no version tells, and to
    look at the weights would cost as much as the product with them.

    Args:
        layer: keeps it.
        name: tells apart what a layer keeps.
        weight: a parameter or buffer of the layer.
        make: gives what is to be kept.

    Returns:
        it, or None where the weight learns, or may change unseen.
    """
    if torch.compiler.is_compiling():
        return None
    if weight.requires_grad or torch.is_grad_enabled() or weight.is_inference():
        layer.__dict__.get("_rheobase_kept", {}).clear()
        return None
    now = (weight.data_ptr(), weight._version, weight.dtype)
    all_kept = layer.__dict__.setdefault("_rheobase_kept", _Kept())
    if name not in all_kept or all_kept[name][0] != now:
        all_kept[name] = now, make(weight)
    made: Tensor = all_kept[name][1]
    return made
