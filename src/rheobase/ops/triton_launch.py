"""How Triton kernels over the columns of a sequence are started."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["THREADS", "launch"]

_WARPS = 4
THREADS = 32 * _WARPS
"""Of one program of a kernel."""


def launch(kernel: Any, like: Tensor, block: int, programs: int, **arguments: Any) -> None:
    """Run a kernel over the columns of ``like``, on its device.

    Raises:
        ValueError: ``like`` is not on a GPU, and Triton does not interpret.
    """
    _check_device(like)
    size = like[0].numel()
    with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
        kernel[(programs,)](
            **arguments,
            steps=like.shape[0],
            size=size,
            row=size,
            WIDE=size + block > 2**31 - 1,
            BLOCK=block,
            num_warps=_WARPS,
            # A multiply and an add fused into one rounding would move h, and so spikes.
            enable_fp_fusion=False,
        )


def _check_device(x: Tensor) -> None:
    if x.is_cuda:
        return
    from triton import knobs

    if not knobs.runtime.interpret:
        raise ValueError(
            f"the Triton backend runs on GPU tensors, got one on {x.device}; move it, or set "
            "TRITON_INTERPRET=1 before Python starts to interpret the kernels (slowly, for tests)"
        )
