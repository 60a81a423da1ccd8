"""Batch norm whose statistics cover the batches of all processes, on any device.

PyTorch's own `SyncBatchNorm` refuses CPU tensors. This one uses plain collectives, so it works
with gloo and nccl alike. Time is folded into the batch by the caller (`over_time`), so the
statistics are over (T, N) of all processes, as one big batch would have them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rheobase.ops.once import once_differentiable

__all__ = ["SyncBatchNorm", "convert_sync_batchnorm"]


class SyncBatchNorm(_BatchNorm):
    """Batch norm over `[N, C, ...]` of all processes of the default group.

    Parameters, buffers and their names are those of `nn.BatchNorm1d/2d/3d`. Without a process
    group, or in evaluation mode, it computes what they compute. Processes may bring batches of
    different sizes. Second derivatives are not provided.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [N, C, ...], got shape {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, same shape and dtype."""
        use_batch = self.training or self.running_mean is None
        if not use_batch or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _SyncNorm.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps
        )
        if self.training and self.track_running_stats and self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        return output  # type: ignore[no-any-return]

    def values_per_channel(self, input: Tensor) -> int:
        """How many values of one channel all processes bring together."""
        count = torch.tensor(input.numel() // input.shape[1], device=input.device)
        if dist.is_initialized():
            dist.all_reduce(count)
        return int(count)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # cumulative average, as nn.BatchNorm does it
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Turn every batch norm inside `module` into a `SyncBatchNorm`, keeping its tensors.

    Parameters stay the same objects, so an optimiser built before stays valid.

    Raises:
        TypeError: A batch norm with a `forward` of its own, which this cannot know.
    """
    if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
        return _converted(module)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))
    return module


def _converted(norm: _BatchNorm) -> SyncBatchNorm:
    if type(norm).forward is not _BatchNorm.forward:
        raise TypeError(
            f"{type(norm).__name__} is a batch norm with a forward of its own and cannot be "
            "synchronised; set parallel.sync_batchnorm=false"
        )
    new = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    new.train(norm.training)
    new._parameters.update(norm._parameters)
    new._buffers.update(norm._buffers)
    return new


class _SyncNorm(torch.autograd.Function):
    """Normalise by the mean and variance over all processes.

    Statistics are joined from (mean, sum of squared deviations, count) of each process (Chan et
    al. 1979), which unlike sums of squares loses no digits.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = [axis for axis in range(x.dim()) if axis != 1]
        view = [1, -1] + [1] * (x.dim() - 2)
        mean, variance, count = _global_statistics(wide, axes)
        inverse = (variance + eps).rsqrt()
        normal = (wide - mean.view(view)) * inverse.view(view)
        output = normal if weight is None else normal * weight.view(view)
        output = output if bias is None else output + bias.view(view)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        axes = [axis for axis in range(x.dim()) if axis != 1]
        view = [1, -1] + [1] * (x.dim() - 2)
        grad = grad.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(view)) * inverse.view(view)
        grad_bias, grad_weight = grad.sum(axes), (grad * normal).sum(axes)
        # The gradient through mean and variance needs the sums over all processes; those of
        # weight and bias stay local, because the data-parallel wrapper reduces parameters.
        sums = torch.stack([grad_bias, grad_weight])
        dist.all_reduce(sums)
        through_mean, through_variance = (sums / count).unbind(0)
        scale = inverse if weight is None else inverse * weight
        grad_x = scale.view(view) * (
            grad - through_mean.view(view) - normal * through_variance.view(view)
        )
        return (
            grad_x.to(x.dtype),
            None if weight is None else grad_weight.to(weight.dtype),
            grad_bias.to(mean.dtype) if ctx.has_bias else None,
            None,
        )


def _global_statistics(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean `[C]`, biased variance `[C]` and count of `x` over all processes."""
    count = x.numel() // x.shape[1]
    variance, mean = torch.var_mean(x, axes, correction=0)
    local = torch.stack([mean, variance, torch.full_like(mean, count)])
    gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, local)
    means, variances, counts = torch.stack(gathered, dim=1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, variance, total[0]
