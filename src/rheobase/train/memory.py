"""A network made to keep no more for its backward pass than a run allows."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase.layers.recompute import recompute
from rheobase.train.config import TrainConfig
from rheobase.train.evaluate import autocast

__all__ = ["keep_within_memory"]


def keep_within_memory(cfg: TrainConfig, net: nn.Module, images: Tensor, scale: float) -> None:
    """Let blocks of ``net`` compute twice, as ``cfg.memory.activations`` asks for.

    Args:
        cfg: The run.
        net: Its network, changed in place.
        images: A few, as the network takes them.
        scale: How many times as many a forward pass will have.

    Raises:
        ValueError: No choice of blocks keeps that little.
    """
    if not cfg.memory.activations:
        return
    with autocast(images.device, cfg.precision):
        recompute(net.train(), images, cfg.memory.activations * 2**30, scale=scale)
