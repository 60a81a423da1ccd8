"""Reversible residual blocks: the backward pass computes their inputs anew from their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from rheobase.layers.drop import DropPath
from rheobase.ops.once import once_differentiable
from rheobase.stateful import Stateful

__all__ = ["ReversibleSequence"]


class ReversibleSequence(nn.Module):
    r"""Residual blocks on two halves of the channels, of which only the last output is kept.

    .. math:: y_1 = x_1 + F(x_2), \qquad y_2 = x_2 + G(y_1)

    The backward pass finds :math:`x_2 = y_2 - G(y_1)` and :math:`x_1 = y_1 - F(x_2)`, block by
    block, running F and G once more for the whole sequence. So the memory of training does not
    grow with depth, for one more forward pass. The gradient is that of plain autograd, but for the
    rounding of the subtraction, which is why half precision input is turned to float32.

    Batch norm updates its running statistics in the first run only. Under `rheobase.streaming`,
    `torch.compile`, `torch.export` and `torch.func` the blocks run plainly.

    Source: Gomez et al. 2017 (RevNet), arXiv 1707.04585; Zhang & Zhang 2024, arXiv 2312.07922.

    Args:
        pairs: F and G of each block; they know no randomness.
        update_twice: update running statistics in the second run too, as released code does.

    Raises:
        ValueError: trained with dropout in F or G, which would draw otherwise in the second run.

    >>> seq = ReversibleSequence([(nn.Identity(), nn.Identity())])
    >>> seq(torch.tensor([1.0, 2.0]).view(1, 1, 2)).flatten()
    tensor([3., 5.])
    """

    one_group = True  # for FSDP2: the backward pass calls the blocks anew

    def __init__(
        self, pairs: Iterable[tuple[nn.Module, nn.Module]], *, update_twice: bool = False
    ) -> None:
        super().__init__()
        pairs = list(pairs)
        self.f = nn.ModuleList(f for f, _ in pairs)
        self.g = nn.ModuleList(g for _, g in pairs)
        self.update_twice = update_twice

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, 2 C, ...]`` to the same shape."""
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        halves = x.chunk(2, dim=2)
        if self._plainly():
            return torch.cat(self.run(*halves), dim=2)
        _refuse_dropout(self)
        parameters = [p for p in self.parameters() if p.requires_grad]
        y: tuple[Tensor, Tensor] = _Reversible.apply(self, *halves, *parameters)  # type: ignore[no-untyped-call]
        return torch.cat(y, dim=2)

    def run(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks one after another, each half ``[T, N, C, ...]``: plain autograd."""
        for f, g in zip(self.f, self.g, strict=True):
            x1 = x1 + f(x2)
            x2 = x2 + g(x1)
        return x1, x2

    def _plainly(self) -> bool:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return True
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return True
        return any(isinstance(m, Stateful) and m._streams for m in self.modules())


def _refuse_dropout(net: nn.Module) -> None:
    for name, module in net.named_modules():
        drops = isinstance(module, _DropoutNd | DropPath) and module.p > 0.0
        if module.training and (drops or isinstance(module, nn.RReLU)):
            raise ValueError(
                f"{name} ({type(module).__name__}) draws at random, and would draw otherwise when "
                "ReversibleSequence computes its blocks again for the backward pass; put it before "
                "or behind the sequence"
            )


class _Reversible(torch.autograd.Function):
    """The whole sequence as one node of the graph; parameters are given for their gradients."""

    @staticmethod
    def forward(
        ctx: Any, sequence: ReversibleSequence, x1: Tensor, x2: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        y1, y2 = sequence.run(x1, x2)
        ctx.sequence, ctx.parameters = sequence, parameters
        ctx.autocast = _autocast_now(x1.device.type)
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, grad1: Tensor, grad2: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2 = ctx.saved_tensors
        sequence: ReversibleSequence = ctx.sequence
        sums: dict[Tensor, Tensor] = {}
        statistics = nullcontext() if sequence.update_twice else _statistics_kept(sequence)
        with ctx.autocast(), statistics:
            for f, g in zip(reversed(sequence.f), reversed(sequence.g), strict=True):
                y2, through = _undo(g, y1, y2, grad2, sums)
                grad1 = grad1 + through
                y1, through = _undo(f, y2, y1, grad1, sums)
                grad2 = grad2 + through
        return None, grad1, grad2, *(sums.get(p) for p in ctx.parameters)


def _undo(
    module: nn.Module, x: Tensor, y: Tensor, grad: Tensor, sums: dict[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """From ``y = before + module(x)``: ``before``, and the gradient that reaches ``x``.

    Gradients of the module's parameters are added to ``sums``.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        branch = module(x)
    through, *gradients = torch.autograd.grad(
        branch, [x, *parameters], grad.to(branch.dtype), allow_unused=True, materialize_grads=True
    )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return y - branch.detach(), through


def _autocast_now(device: str) -> Any:
    """What enters the autocast of this moment again; "meta" has none."""
    if device == "meta":
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within the block, batch norms in training leave their running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
