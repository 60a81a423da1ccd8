"""A network made to keep no more for its backward pass than a run allows."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rheobase.layers.recompute import recompute
from rheobase.train.config import TrainConfig
from rheobase.train.evaluate import autocast

__all__ = ["keep_within_memory"]

_PROBE = 4  # images


def keep_within_memory(
    cfg: TrainConfig, net: nn.Module, draw: Callable[[int], Tensor], count: int
) -> None:
    """Let blocks of ``net`` compute twice, as ``cfg.memory.activations`` asks for.

    Args:
        cfg: The run.
        net: Its network, changed in place.
        draw: Gives so many images, as the network takes them; not called if nothing is asked for.
        count: How many images a forward pass will have.

    Raises:
        ValueError: No choice of blocks keeps that little.
    """
    if not cfg.memory.activations:
        return
    few = min(_PROBE, count)
    images = draw(few)
    with autocast(images.device, cfg.precision):
        recompute(net.train(), images, cfg.memory.activations * 2**30, scale=count / few)
