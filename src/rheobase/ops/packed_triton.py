"""Spikes to bits and back on the GPU: eight to a byte, the first in the lowest bit."""

# Triton compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["pack", "unpack"]

_BLOCK = 256  # bytes of bits for each program


def pack(line: Tensor) -> Tensor:
    """One bit for each element of ``line`` (``[n]``, any dtype): 1 where it is not 0."""
    packed = torch.empty(-(-line.numel() // 8), dtype=torch.uint8, device=line.device)
    _run(_pack, line, packed)
    return packed


def unpack(packed: Tensor, line: Tensor) -> None:
    """Fill ``line`` with the zeros and ones that `pack` made ``packed`` of."""
    _run(_unpack, line, packed)


def _run(kernel, line: Tensor, packed: Tensor) -> None:
    with torch.cuda.device_of(line):  # type: ignore[no-untyped-call]
        kernel[(triton.cdiv(packed.numel(), _BLOCK),)](line, packed, line.numel(), BLOCK=_BLOCK)


@triton.jit
def _places(size, BLOCK: tl.constexpr):
    """Which bytes a program owns, and for each the eight elements."""
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return byte, byte[:, None] * 8 + tl.arange(0, 8)[None, :]


@triton.jit
def _pack(line, packed, size, BLOCK: tl.constexpr):
    byte, element = _places(size, BLOCK)
    spikes = tl.load(line + element, mask=element < size, other=0.0) != 0.0
    bits = spikes.to(tl.int32) << tl.arange(0, 8)[None, :]
    tl.store(packed + byte, tl.sum(bits, axis=1).to(tl.uint8), mask=byte * 8 < size)


@triton.jit
def _unpack(line, packed, size, BLOCK: tl.constexpr):
    byte, element = _places(size, BLOCK)
    bits = tl.load(packed + byte, mask=byte * 8 < size, other=0).to(tl.int32)
    spikes = (bits[:, None] >> tl.arange(0, 8)[None, :]) & 1
    tl.store(line + element, spikes.to(tl.float32), mask=element < size)
