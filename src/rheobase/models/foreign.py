"""Networks of other people's code, by the name of what makes them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from rheobase._weights import read_weights
from rheobase.models.ann_resnet import official_weights

__all__ = ["load_module"]


def load_module(
    name: str, weights: str | os.PathLike[str] | None = None, /, **options: Any
) -> nn.Module:
    """The module that ``package.module:function`` makes, with weights, in evaluation mode.

    Args:
        name: of the function, or class; it runs, so name only what you trust.
        weights: file of its state dict, ``.safetensors`` or of `torch.save` (read with
            ``weights_only``); None keeps those it is made with.
        options: its keyword arguments.

    Raises:
        ValueError: the name has another form, what it names makes no module, or the file holds
            other weights, code, or is damaged.
        ImportError: there is no such package.
        OSError: the weights can't be read.

    >>> load_module("torch.nn:Linear", in_features=3, out_features=2)
    Linear(in_features=3, out_features=2, bias=True)
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"expected package.module:function that makes a module, got {name!r}")
    make = getattr(import_module(module), attribute, None)
    if make is None:
        raise ValueError(f"{module} has nothing of the name {attribute!r}")
    net = make(**options)
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name} made a {type(net).__name__}, not a torch.nn.Module")
    if weights is not None:
        try:
            net.load_state_dict(_state_dict(weights))
        except RuntimeError as error:
            raise ValueError(f"{weights} does not hold the weights of {name}: {error}") from error
    return net.eval()


def _state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    loaded = read_weights(path)
    return official_weights(loaded) if "state_dict" in loaded else loaded
