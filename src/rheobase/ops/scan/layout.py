"""How the scan sees memory: a sequence as T rows of one dense order, coefficients as vectors.

The scan is elementwise over everything but time, so any dense order (channels first, channels
last) is taken as it lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Outputs",
    "Vector",
    "at_every_step",
    "compute_dtype",
    "dense_rows",
    "flat",
    "like_rows",
    "like_state",
    "rows_like",
    "stacked_like",
    "steps_of",
    "vector",
]


class Outputs(NamedTuple):
    """What a forward pass gives.

    Attributes:
        spikes: ``[T, ...]``.
        last: the last membrane, if asked for.
        membranes: ``[T, ...]``, if tapped.
        marks: states on the way that the backward pass can start from, where the backend has any.
    """

    spikes: Tensor
    last: Tensor | None
    membranes: Tensor | None
    marks: Tensor | None = None


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of membranes and arithmetic: float64 for float64 input, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def at_every_step(x: Tensor, steps: int) -> Tensor:
    """A sequence ``[steps, ...]`` itself; one image ``[1, ...]`` repeated, without copying."""
    return x if x.shape[0] == steps else x.expand(steps, *x.shape[1:])


def dense_rows(x: Tensor) -> Tensor:
    """``x`` itself if each step is dense in memory and steps do not overlap, else a copy.

    A repeated image (time stride 0) stays as it is.
    """
    if x.is_contiguous():
        return x
    step = x.stride(0)
    if _is_dense(x.shape[1:], x.stride()[1:]) and (step == 0 or step >= x[0].numel()):
        return x
    return x.contiguous()


def steps_of(x: Tensor) -> tuple[Tensor, ...]:
    """Every step of a sequence; its gradient comes back in the dense order of ``x``.

    Never ``x[t]``: indexing under autograd makes the backward quadratic in T.
    """
    order = _order_of_step(x)
    if order is None:
        return x.unbind(0)
    back = _inverse(order)
    return tuple(step.permute(back) for step in x.permute(0, *(1 + n for n in order)).unbind(0))


def stacked_like(steps: Sequence[Tensor], x: Tensor) -> Tensor:
    """Tensors shaped as a step of ``x`` as one sequence, each in the dense order of such a step."""
    order = _order_of_step(x)
    if order is None:
        return torch.stack(list(steps))
    rows = torch.stack([step.permute(order) for step in steps])
    return rows.permute(0, *(1 + n for n in _inverse(order)))


def _order_of_step(x: Tensor) -> tuple[int, ...] | None:
    """The axes of a step from the outermost in memory inwards; None: as they come."""
    stride = x.stride()[1:]
    if x.is_contiguous() or not _is_dense(x.shape[1:], stride):
        return None
    order = tuple(sorted(range(len(stride)), key=lambda axis: -stride[axis]))
    return None if order == tuple(range(len(stride))) else order


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))


def _is_dense(shape: torch.Size, stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in sorted(
        ((n, s) for n, s in zip(shape, stride, strict=True) if n != 1), key=lambda pair: pair[1]
    ):
        if step != expected:
            return False
        expected *= size
    return True


def like_rows(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A new sequence with the dense order of ``x`` (which `dense_rows` returned)."""
    if x.is_contiguous():
        return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    size = x[0].numel()
    return torch.empty_strided(
        x.shape, (size, *x.stride()[1:]), dtype=dtype or x.dtype, device=x.device
    )


def like_state(x: Tensor, filtered: bool) -> Tensor:
    """Room for a membrane in the dense order of a step of ``x``; filtered, for a current too."""
    if not filtered:
        return like_rows(x[:1], compute_dtype(x))[0]
    return like_rows(x[:1].expand(2, *x.shape[1:]), compute_dtype(x))


def rows_like(value: Tensor, x: Tensor) -> Tensor:
    """``value`` in the dense order of ``x``: itself where it already is, else a copy.

    Axes of size 1 have no order; a value repeated over time may stay so.
    """
    if value.stride() == x.stride():
        return value
    same = all(
        n == 1 or a == b
        for n, a, b in zip(x.shape[1:], value.stride()[1:], x.stride()[1:], strict=True)
    )
    step = value.stride(0)
    if same and (step == 0 or step >= x[0].numel() or x.shape[0] == 1):
        return value
    return like_rows(x, value.dtype).copy_(value)


def flat(x: Tensor) -> tuple[Tensor, int]:
    """The memory behind a sequence of dense rows, and the distance from one step to the next.

    Of use to kernels, which see the memory as one line whatever the shape.
    """
    steps = x.shape[0]
    size = x.numel() // steps
    step = x.stride(0) if steps > 1 else size
    if step == size:
        return x, step
    return x.as_strided((step * (steps - 1) + size,), (1,)), step


@dataclass(slots=True)
class Vector:
    """A coefficient in the order of ``x``: column m has ``values[(m // inner) % count]``.

    ``values`` are ``count``, or ``T * count`` with ``step = count`` when it varies over time.
    """

    values: Tensor
    count: int
    inner: int
    step: int
    shape: tuple[int, ...]  # of the coefficient as `restore` rebuilds it
    order: tuple[int, ...] | None  # strides of one full row, or None for a single axis

    def restore(self, gradient: Tensor, like: Tensor) -> Tensor:
        """A gradient laid out as ``values`` in the shape of the coefficient ``like``."""
        if self.order is None:  # one value each
            given = gradient.view(like.shape)
            return given if given.dtype == like.dtype else given.to(like.dtype)
        full = gradient.as_strided(self.shape, (self.count, *self.order))
        return full.sum_to_size(like.shape).to(like.dtype)


def vector(value: Tensor, x: Tensor, dtype: torch.dtype) -> Vector:
    """Lay a coefficient out for the kernels.

    Args:
        value: broadcasts to ``x[0]``, or to ``x`` if it has as many axes (its first is then time,
            of size T or 1).
        x: the sequence, from `dense_rows`.
        dtype: of the values.

    Raises:
        ValueError: ``value`` does not broadcast to ``x``.
    """
    count, inner, step, shape, order = _place(value.shape, x.shape, x.stride())
    if order is None:
        values = value  # kernels see its memory as one line
    else:
        row = torch.empty_strided(shape, (count, *order), dtype=dtype, device=x.device)
        row.copy_(value.reshape((1,) * (x.dim() - value.dim()) + value.shape))
        values = row.as_strided((row.numel(),), (1,))
    if values.dtype != dtype or not values.is_contiguous():
        values = values.to(dtype).contiguous()
    return Vector(values, count, inner, step, shape, order)


# Asked for each coefficient at every call, and answered from a few.
@lru_cache(maxsize=4096)
def _place(
    shape: torch.Size, sequence: torch.Size, strides: tuple[int, ...]
) -> tuple[int, int, int, tuple[int, ...], tuple[int, ...] | None]:
    """Of a `Vector` all but its values, by the shapes of coefficient and sequence."""
    sizes = zip(reversed(shape), reversed(sequence), strict=False)
    if len(shape) > len(sequence) or any(n not in (1, m) for n, m in sizes):
        raise ValueError(
            f"a coefficient of shape {list(shape)} does not broadcast to the input {list(sequence)}"
        )
    full = (*[1] * (len(sequence) - len(shape)), *shape)
    steps, size = full[0], math.prod(sequence[1:])
    wide = [axis for axis in range(1, len(full)) if full[axis] > 1]
    if len(wide) > 1:
        return size, 1, size if steps > 1 else 0, (steps, *sequence[1:]), strides[1:]
    count = full[wide[0]] if wide else 1
    inner = strides[wide[0]] if wide else size
    return count, inner, count if steps > 1 else 0, full, None
