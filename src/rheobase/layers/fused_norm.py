"""Batch norm handed to the neuron behind it, which then does both in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rheobase.layers.norms import ThresholdDependentBatchNorm2d
from rheobase.neurons import Neuron
from rheobase.ops.batch_norm import batch_gain_and_shift
from rheobase.ops.eager import is_plain, watched
from rheobase.ops.pool import pool_before_norm, pools_before_norm
from rheobase.ops.scan import InputNorm
from rheobase.ops.scan.layout import at_every_step, dense_rows

__all__ = ["norm_and_fire"]

# How many axes a sequence may have for each.
_KNOWN: dict[type, tuple[int, ...]] = {
    nn.BatchNorm1d: (3, 4),
    nn.BatchNorm2d: (5,),
    nn.BatchNorm3d: (6,),
    ThresholdDependentBatchNorm2d: (5,),
}


def norm_and_fire(
    x: Tensor,
    norm: nn.Module,
    neuron: Callable[[Tensor], Tensor],
    pool: nn.MaxPool2d | None,
    steps: int,
) -> Tensor | None:
    """``neuron(pool(norm(x)))`` in one pass, or None where that cannot be.

    It can be where the norm is a plain batch norm and the neuron one of the scan, nobody watches
    either (no hooks), and the call is an eager one. A maximum is taken before the norm: where the
    norm's gains are positive that is the same, and what is normalised is a quarter. (On a GPU,
    which would have to be waited for to see the gains, it is a minimum where they are negative.)

    Args:
        x: ``[T, N, C, ...]``, or ``[1, N, C, ...]`` for an image that comes at every step;
            statistics are taken over all axes but C.
        norm: the batch norm; in training its running statistics are updated as PyTorch does.
        neuron: what follows it.
        pool: what stands between them.
        steps: T.
    """
    if torch.compiler.is_compiling():
        return None
    # PyTorch's own norm has the words for what is wrong with such an input.
    if x.dim() not in _KNOWN.get(type(norm), ()) or watched(norm):
        return None
    # None, or of a class that may have a batch norm of its own.
    if not all(isinstance(p, Tensor) and is_plain(p) for p in (norm.weight, norm.bias)):
        return None
    if x.shape[2] != norm.num_features or x.numel() <= x.shape[2]:
        return None
    # Who watches a neuron (hooks, `record_membranes`) is to see the current into it, which is then
    # never made; a forward of a subclass's own knows of no norm.
    if not isinstance(neuron, Neuron) or watched(neuron):
        return None
    if type(neuron).forward is not Neuron.forward:
        return None
    if not neuron.takes_norm(at_every_step(x, steps)):
        return None
    if pool is not None and not _pools_first(x, norm, pool):
        return None
    x, gain, shift = _gain_and_shift(dense_rows(x), norm, steps)
    if pool is not None:
        images = _pooled(x.flatten(0, 1), norm.weight, pool)
        x = images.view(*x.shape[:2], *images.shape[1:])
    image = x if x.shape[0] < steps else None
    spikes: Tensor = neuron(at_every_step(x, steps), norm=InputNorm(gain, shift, image))
    return spikes


def _pools_first(x: Tensor, norm: nn.Module, pool: nn.MaxPool2d) -> bool:
    assert isinstance(norm.weight, Tensor)
    if watched(pool) or type(pool).forward is not nn.MaxPool2d.forward:
        return False
    if x.is_cuda:
        return pools_before_norm(pool)
    # Where a gain is 0 all are alike behind the norm, and its gradient is that of the first.
    return bool((norm.weight.detach() > 0).all())


def _pooled(x: Tensor, weight: Tensor | nn.Module, pool: nn.MaxPool2d) -> Tensor:
    assert isinstance(weight, Tensor)
    pooled: Tensor = pool_before_norm(x, weight, pool) if x.is_cuda else pool(x)
    return pooled


def _gain_and_shift(x: Tensor, norm: nn.Module, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The input to go on with, and what makes its batch norm of it, each for ``x[0, 0]``."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    weight: Tensor = norm.weight
    if isinstance(norm, ThresholdDependentBatchNorm2d):
        weight = weight * norm.scale
    if norm.training or norm.running_mean is None:
        x, gain, shift, mean, variance = batch_gain_and_shift(x, weight, norm.bias, norm.eps)
        if norm.track_running_stats:
            count = x[0].numel() // x.shape[2] * steps
            _update(norm, mean, variance, count)
        return x, gain, shift
    assert norm.running_var is not None
    gain = weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * gain
    shape = (-1, *[1] * (x.dim() - 3))
    return x, gain.view(shape), shift.view(shape)


@torch.no_grad()
def _update(
    norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d,
    mean: Tensor,
    variance: Tensor,
    count: int,
) -> None:
    """Move the running statistics; the running variance is the unbiased one."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    momentum = norm.momentum
    if momentum is None:
        momentum = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    unbiased = variance * (count / (count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
