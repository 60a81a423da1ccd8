"""Whether a call may go straight to compiled kernels, behind PyTorch's back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

__all__ = [
    "is_plain",
    "is_plain_image",
    "is_seen_by_nobody",
    "is_transformed",
    "layer_dtype",
    "watched",
]


def is_plain(x: Tensor) -> bool:
    """Whether this is an eager call that nobody traces."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None  # of `torch.jit.trace`: sizes are tensors there
        and not x.is_neg()  # as the imaginary part of a conjugate: memory holds the opposite
    )


def is_transformed() -> bool:
    """Whether a functorch transform or a forward-mode level is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None or (
        forward_ad._current_level >= 0
    )


def is_seen_by_nobody(x: Tensor) -> bool:
    """Whether an eager call may do another thing than PyTorch's function: nobody counts that."""
    return is_plain(x) and not is_transformed() and torch._C._len_torch_function_stack() == 0


def is_plain_image(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution's kernel can take ``x``: plain images on the CPU that fit."""
    return (
        is_seen_by_nobody(x)
        and is_plain(weight)  # a class of tensors may have a convolution of its own
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[1] == weight.shape[1]
        and x.numel() > 0
    )


def layer_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """In which dtype PyTorch's layer would run on the CPU: autocast's, or what both have."""
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype if x.dtype == weight.dtype else None
    castable = {x.dtype, weight.dtype} <= {torch.float32, torch.bfloat16}
    return torch.get_autocast_dtype("cpu") if castable else None


def watched(module: nn.Module) -> bool:
    """Whether hooks or another forward are on the module, or hooks on all modules.

    Only the module's own call would run them.
    """
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()  # type: ignore[no-untyped-call]
    )
