"""3x3 convolutions of spikes in float32, channels last, against PyTorch's own (oneDNN)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Record, claim, interleave, spread
from rheobase.ops.winograd import conv3x3

__all__ = ["training"]

# Images, input and output channels, side: those of a Spikformer for CIFAR, T 4, batch 16.
SHAPES = ((64, 32, 64, 32), (64, 64, 128, 32), (64, 128, 256, 16), (64, 256, 256, 8))


def training(rounds: int) -> list[Record]:
    """Forward, and gradients of input and weight."""
    return [_training(*shape, rounds) for shape in SHAPES]


def _training(n: int, channels: int, outputs: int, side: int, rounds: int) -> Record:
    torch.manual_seed(0)
    x = (torch.rand(n, channels, side, side) < 0.2).float()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(outputs, channels, 3, 3) / (3 * channels**0.5)).requires_grad_()
    g = torch.randn(n, outputs, side, side).contiguous(memory_format=torch.channels_last)
    layers: dict[str, Callable[[], Tensor]] = {
        "rheobase": partial(conv3x3, x, weight, None),
        "PyTorch": partial(F.conv2d, x, weight, None, padding=1),
    }
    ours, theirs = (layer().detach() for layer in layers.values())
    error = float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())

    def step(layer: Callable[[], Tensor]) -> None:
        torch.autograd.grad(layer(), (x, weight), g)

    times = interleave({name: partial(step, layer) for name, layer in layers.items()}, rounds)
    return Record(
        f"3×3 convolution {channels} → {outputs}, {n} images of {side}×{side}, training",
        "ms",
        {name: spread(values) for name, values in times.items()},
        [claim(times, "PyTorch", "rheobase", at_least=1.0)],
        [f"outputs differ by {error:.1e} of their size (root mean square)"],
    )
