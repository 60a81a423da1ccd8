"""A network as it will be used: evaluation mode, no gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put ``net`` into evaluation mode without gradients, and back into its modes afterwards."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
