"""Initialisations that several vision families share."""

from __future__ import annotations

from torch import nn

__all__ = ["initialise_layer", "initialise_layers", "initialise_linear"]


def initialise_layers(net: nn.Module, *kinds: type[nn.Linear] | type[nn.Conv2d]) -> None:
    """Layers of these kinds from a truncated normal of deviation 0.02, without bias."""
    for module in net.modules():
        if isinstance(module, kinds):
            initialise_layer(module)


def initialise_linear(net: nn.Module) -> None:
    """Linear layers on tokens from a truncated normal of deviation 0.02, without bias.

    These are `nn.Linear` and 1x1 convolutions.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        ):
            initialise_layer(module)


def initialise_layer(layer: nn.Linear | nn.Conv2d) -> None:
    """The weight from a truncated normal of deviation 0.02, no bias."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
