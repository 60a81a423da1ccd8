"""Initialisations that several vision families share."""

from __future__ import annotations

from torch import nn

__all__ = ["initialise_linear"]


def initialise_linear(net: nn.Module) -> None:
    """Linear layers on tokens from a truncated normal of deviation 0.02, without bias.

    These are `nn.Linear` and 1x1 convolutions.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        ):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
