"""Spikes kept for the backward pass as bits, and small integers as bytes.

A convolution or linear layer saves its input to differentiate its weight. Where that input is
spikes, one bit an element tells all of it: 1/32 of float32. `mark` notes on a tensor that its
values are the integers 0 to ``largest``, until something changes them in place; `saving_packed`
packs what autograd saves of it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rheobase.ops.eager import is_transformed
from rheobase.ops.gpu import HAS_TRITON, gpu_kernels
from rheobase.ops.native import Kernel, imported_kernel, in_chunks

__all__ = ["BLOCK", "largest", "mark", "saving_packed"]

BLOCK = 64
"""Bytes of bits that are written at once on the CPU (see `rheobase.ops.bits`)."""

_MARK = "_rheobase_largest"
_CACHE = "_rheobase_packed"


def mark(x: Tensor, largest: int) -> Tensor:
    """Note that the values of ``x`` are integers from 0 to ``largest``; returns ``x`` itself.

    Of use to eager training only, so nothing is noted while PyTorch traces or needs no gradient.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling() and not x.is_inference():
        setattr(x, _MARK, (largest, x._version))
    return x


def largest(x: Tensor) -> int | None:
    """The bound noted on ``x``; None where there is none, or the values have changed since."""
    noted = None if torch.compiler.is_compiling() else getattr(x, _MARK, None)
    if noted is None:
        return None
    bound: int
    bound, version = noted
    return bound if version == x._version else None


@dataclass(frozen=True)
class _Packed:
    """A dense tensor of small integers, as bits (``largest`` 1) or bytes, in its memory order."""

    data: Tensor
    bits: bool
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __reduce__(self) -> tuple[type[OrderedDict[str, Tensor]], tuple[()]]:
        """Saved or copied with its tensor it is nothing, which ``weights_only`` loads too."""
        return OrderedDict, ()

    def unpack(self) -> Tensor:
        device = self.data.device
        out = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)
        line = out.as_strided((self.shape.numel(),), (1,))
        if self.bits:
            _unpack_bits(self.data, line)
        else:
            line.copy_(self.data)
        return out


def saving_packed(x: Tensor, folded: Tensor) -> AbstractContextManager[None]:
    """Within the block, autograd saves ``folded`` packed, if ``x`` is marked.

    Args:
        x: the marked tensor; what is packed is kept on it, once for all its consumers.
        folded: ``x`` as its consumer sees it, a view of the same memory.
    """
    if not torch.is_grad_enabled() or folded.is_meta:  # shapes alone have no bits
        return nullcontext()
    hooks_allowed = torch._C._autograd._saved_tensors_hooks_is_enabled  # type: ignore[attr-defined]
    if is_transformed() or not hooks_allowed():
        return nullcontext()
    bound = largest(x)
    if bound is None or bound > 255 or not _is_dense(folded) or (x.is_cuda and not HAS_TRITON):
        return nullcontext()

    def pack(saved: Tensor) -> Tensor | _Packed:
        if saved.data_ptr() != folded.data_ptr() or saved.stride() != folded.stride():
            return saved
        packed = getattr(x, _CACHE, None)
        layout = saved.shape, saved.stride()
        if not isinstance(packed, _Packed) or (packed.shape, packed.stride) != layout:
            packed = _pack(saved, bits=bound == 1)
            setattr(x, _CACHE, packed)
        return packed

    def unpack(saved: Tensor | _Packed) -> Tensor:
        return saved.unpack() if isinstance(saved, _Packed) else saved

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _is_dense(x: Tensor) -> bool:
    if x.is_contiguous():
        return True
    if x.dim() == 5 and x.stride(0) == x.shape[1] * x.stride(1):
        x = x.flatten(0, 1)
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _pack(x: Tensor, bits: bool) -> _Packed:
    flat = x.detach().as_strided((x.numel(),), (1,))
    data = _pack_bits(flat) if bits else flat.to(torch.uint8)
    return _Packed(data, bits, x.shape, x.stride(), x.dtype)


def _pack_bits(line: Tensor) -> Tensor:
    """Eight elements to a byte; the last is padded with 0. Each device has its own order."""
    if line.is_cuda:
        bits: Tensor = gpu_kernels("packed").pack(line)
        return bits
    packed = torch.empty(-(-line.numel() // 8), dtype=torch.uint8)
    chunks, chunk = in_chunks(packed.numel(), BLOCK)
    _pack_kernel(line.dtype)(chunks, line.nbytes, line, packed, chunk)
    return packed


def _unpack_bits(data: Tensor, line: Tensor) -> None:
    if line.is_cuda:
        gpu_kernels("packed").unpack(data, line)
        return
    chunks, chunk = in_chunks(data.numel(), BLOCK)
    one = torch.ones(1, dtype=line.dtype)
    _unpack_kernel(line.dtype)(chunks, line.nbytes, data, line, one, chunk)


@cache
def _pack_kernel(dtype: torch.dtype) -> Kernel:
    parameters = {"values": _pointer(dtype), "packed": "uint8*", "chunk": "int64"}
    return imported_kernel("bits", "pack", parameters)


@cache
def _unpack_kernel(dtype: torch.dtype) -> Kernel:
    values = _pointer(dtype)
    parameters = {"packed": "uint8*", "values": values, "ones": values, "chunk": "int64"}
    return imported_kernel("bits", "unpack", parameters)


def _pointer(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.") + "*"
