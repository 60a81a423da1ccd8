"""Time folded into the batch, so that layers which do not know time stay plain `torch.nn`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from rheobase.layers.fused_norm import norm_and_fire
from rheobase.layers.kept import keeps, kept
from rheobase.layers.sync_norm import SyncBatchNorm
from rheobase.ops import average_pool, products, winograd
from rheobase.ops.eager import is_plain, is_transformed, watched
from rheobase.ops.packed import largest, mark, saving_packed
from rheobase.ops.scan.layout import at_every_step
from rheobase.stateful import Stateful

__all__ = ["apply_layer", "leaking", "over_time", "repeat"]


def repeat(image: Tensor, steps: int) -> Tensor:
    """The same image at every step, without copying: ``[N, ...] -> [T, N, ...]``.

    What does not depend on time is then computed once: `over_time` sees the repetition.

    >>> import torch
    >>> repeat(torch.zeros(2, 3), 4).shape
    torch.Size([4, 2, 3])
    """
    return image.expand(steps, *image.shape)


def over_time(x: Tensor, *modules: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply modules to a sequence, every step at once.

    Args:
        x: ``[T, N, ...]``; a repeated image (see `repeat`) is computed once, and batch norm is
            updated as if all T copies had been seen.
        modules: called one after another. One that knows time (a `Stateful` module: a neuron, a
            norm of `rheobase.layers.norms`, an attention over time; or one with such a part) is
            called on ``[T, N, ...]``, any other on ``[T * N, ...]``. A batch norm before a neuron
            is done in the neuron's own pass where that is possible, with the same results. Dropout
            draws anew at every step, also of a repeated image; modules of your own that draw at
            random draw once for one (give them ``x.contiguous()`` for more).

    Returns:
        ``[T, N, ...]`` with the modules' output shape.
    """
    first = 0
    for number, module in enumerate(modules):
        if _knows_time(module):
            x = _then(x, modules[first:number], module)
            first = number + 1
    return _folded(x, modules[first:])


def _knows_time(module: Callable[[Tensor], Tensor]) -> bool:
    if isinstance(module, Stateful):
        return True
    # Most modules have no parts, and few calls are as frequent as this one.
    parts = module.children() if isinstance(module, nn.Module) and module._modules else ()
    return any(_knows_time(part) for part in parts)


def _then(
    x: Tensor,
    modules: tuple[Callable[[Tensor], Tensor], ...],
    last: Callable[[Tensor], Tensor],
) -> Tensor:
    """The modules, then one that knows time."""
    pool = modules[-1] if modules and isinstance(modules[-1], nn.MaxPool2d) else None
    before = len(modules) - (1 if pool is None else 2)
    norm = modules[before] if before >= 0 else None
    if isinstance(norm, _BatchNorm):
        steps = x.shape[0]
        if _is_repeated(x) and not any(map(_counts, modules[:before])):
            x = _once(x.select(0, 0), steps, modules[:before]).unsqueeze(0)
        else:
            x = _folded(x, modules[:before])
        spikes = norm_and_fire(x, norm, last, pool, steps)
        if spikes is not None:
            return spikes
        x = at_every_step(x, steps)
        modules = modules[before:]
    y: Tensor = last(_folded(x, modules))
    return y


def _is_repeated(x: Tensor) -> bool:
    return x.shape[0] > 1 and x.stride(0) == 0


def _counts(module: Callable[[Tensor], Tensor]) -> bool:
    """Whether T equal images are another thing to it than one of them.

    It draws at random, or has a batch norm within, whose running variance knows how many there are.
    """
    if not isinstance(module, nn.Module):
        return False
    return any(
        m.training
        and (
            isinstance(m, _DropoutNd | nn.RReLU)
            or (isinstance(m, _BatchNorm) and m.track_running_stats and m is not module)
        )
        for m in module.modules()
    )


def _takes_maxima(module: Callable[[Tensor], Tensor]) -> bool:
    return (
        isinstance(module, nn.MaxPool2d)
        and type(module).forward is nn.MaxPool2d.forward
        and not watched(module)
    )


def _folded(x: Tensor, modules: tuple[Callable[[Tensor], Tensor], ...]) -> Tensor:
    if not modules:
        return x
    if len(modules) > 1 and largest(x) is not None and _takes_maxima(modules[0]):
        # What is pooled of spikes is spikes, of which the module behind may keep bits too.
        return _folded(_folded(x, modules[:1]), modules[1:])
    steps = x.shape[0]
    if _is_repeated(x):
        alike = next((i for i, module in enumerate(modules) if _counts(module)), len(modules))
        x, modules = repeat(_once(x.select(0, 0), steps, modules[:alike]), steps), modules[alike:]
        if not modules:
            return x
    # Folding [1, 1, ...] gives the batch a stride at which PyTorch 2.13's batch norm goes wrong.
    y = x.squeeze(0) if steps == 1 else x.flatten(0, 1)
    if type(modules[0]) is nn.Conv2d:
        y = _in_order(y, modules[0])
    # What the first module saves of spikes is kept as bits.
    with saving_packed(x, y):
        y = apply_layer(modules[0], y)
    for module in modules[1:]:
        y = apply_layer(module, y)
    y = y.unsqueeze(0) if steps == 1 else y.unflatten(0, (steps, -1))  # type: ignore[no-untyped-call]
    bound = largest(x)
    return y if bound is None or not all(map(_takes_maxima, modules)) else mark(y, bound)


def leaking(x: Tensor, neuron: Callable[[Tensor], Tensor]) -> Tensor:
    """What a neuron gives that takes the samples of a batch for steps of time.

    Some released code folds ``[T, N, ...]`` into ``[T * N, ...]`` before a neuron, so that its
    membrane leaks from sample to sample, and what an image gives depends on the others in its
    batch. Checkpoints trained so need it.
    """
    return neuron(x.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call,no-any-return]


def _once(y: Tensor, steps: int, modules: tuple[Callable[[Tensor], Tensor], ...]) -> Tensor:
    for module in modules:
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
            y = _normalise_copies(module, y, steps)
        else:
            y = apply_layer(module, y)
    return y


def apply_layer(module: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """``module(y)``, in the faster memory order and by the faster of two ways, where there are."""
    if type(module) is nn.Conv2d:
        y = _in_order(y, module)
        if winograd.takes(y, module):
            # Of one image it takes as long to transform the weight as all the rest.
            points = (
                kept(module, "points", module.weight, winograd.spread) if keeps(module) else None
            )
            return winograd.conv3x3(y, module.weight, module.bias, points)
        if products.takes(y, module):
            return products.conv1x1(y, module.weight, module.bias)
    if type(module) is nn.AvgPool2d and average_pool.takes(y, module):
        return average_pool.average_pool(y, module)
    return module(y)


def _in_order(y: Tensor, module: nn.Conv2d) -> Tensor:
    """The images in the order that convolutions want; neurons and norms keep it."""
    if y.dim() != 4 or y.is_meta or not is_plain(y) or is_transformed():
        return y
    if not y.is_cpu:
        return y.contiguous(memory_format=torch.channels_last)
    small = max(module.kernel_size) == 1
    if small and max(module.stride) > 1 and module.in_channels < 16:
        # PyTorch 2.13 writes past the end of its memory there, channels last on several threads,
        # in the weight's gradient (oneDNN's jit_avx512_common_1x1_convolution_bwd_weights).
        return y.contiguous()
    if small or y.dtype not in (torch.float32, torch.bfloat16):
        return y
    return y.contiguous(memory_format=torch.channels_last)


def _normalise_copies(norm: _BatchNorm, y: Tensor, steps: int) -> Tensor:
    """Batch norm of ``steps`` equal copies: the same output, another count in running_var.

    The running variance is the unbiased one, n/(n-1) times the batch's; T copies make n T times
    larger.
    """
    if y.numel() == y.shape[1]:  # one value has no variance; T copies have 0
        out_of_copies: Tensor = norm(y.expand(steps, *y.shape[1:]))
        return out_of_copies[:1]
    assert norm.running_var is not None
    before = norm.running_var.clone()
    out: Tensor = norm(y)
    if isinstance(norm, SyncBatchNorm):
        n = norm.values_per_channel(y)
    else:
        n = y.numel() // y.shape[1]
    correction = (steps * n / (steps * n - 1)) / (n / (n - 1))
    momentum = norm.momentum
    if momentum is None:
        assert norm.num_batches_tracked is not None
        momentum = 1.0 / float(norm.num_batches_tracked)
    kept = (1.0 - momentum) * before
    # Through .data: batch norm has saved the buffer for its backward, which in training does not
    # read it, but would refuse one that autograd saw change.
    norm.running_var.data.copy_(kept + correction * (norm.running_var - kept))
    return out
