"""Wall time of inference."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from rheobase.measure._evaluating import evaluating

__all__ = ["wall_time_per_image"]


def wall_time_per_image(net: nn.Module, images: Tensor, repeats: int = 5) -> float:
    """Seconds per image of ``net(images)``: the median over ``repeats`` calls, after one warm-up.

    Args:
        net: a network for static images; runs in evaluation mode.
        images: ``[N, C, H, W]``. What is measured is the throughput at batch size N.
        repeats: timed calls.
    """
    seconds = []
    with evaluating(net):
        net(images)
        for _ in range(repeats):
            _wait(images.device)
            start = time.perf_counter()
            net(images)
            _wait(images.device)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / len(images)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
