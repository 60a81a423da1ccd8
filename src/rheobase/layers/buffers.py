"""Buffers that a call must not change: running statistics, above all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["buffers_kept"]


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Give a module's buffers back the values from before the block.

    >>> norm = nn.BatchNorm1d(1)
    >>> with buffers_kept(norm):
    ...     _ = norm(norm.weight.new_ones(4, 1))
    >>> norm.running_mean.item()
    0.0
    """
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            # Through .data: batch norm has saved the buffer, and would refuse one that changed.
            buffer.data.copy_(value)
