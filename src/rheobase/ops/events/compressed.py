"""What is not 0 of a tensor, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rheobase.ops.eager import is_plain, is_seen_by_nobody
from rheobase.ops.events.kernel import event_kernel
from rheobase.ops.native import Kernel, in_chunks

__all__ = ["MAX_DENSITY", "Events", "compressed", "takes_events"]

MAX_DENSITY = 0.2
"""Above it, the dense product is taken."""

_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Events:
    """Places (int32) and values of what is not 0 in ``[rows, inputs]``.

    ``starts`` and ``counts`` ``[rows]`` say where a row's lie.
    """

    which: Tensor
    values: Tensor
    starts: Tensor
    counts: Tensor

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the kernels take them."""
        return self.which, self.values, self.starts, self.counts


def takes_events(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can take this input and weight: plain eager calls on the CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _DTYPES
        and is_seen_by_nobody(x)
        and is_plain(weight)  # a class of tensors may have a product of its own
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
    )


def compressed(x: Tensor) -> Events | None:
    """The events of ``x`` ``[..., inputs]``, or None if there are too many (`MAX_DENSITY`)."""
    inputs = x.shape[-1]
    rows = x.numel() // inputs
    chunks, chunk = in_chunks(rows)
    # A row is written before its number of events is known, so a whole one must fit.
    room = int(MAX_DENSITY * chunk * inputs) + inputs
    which = torch.empty(chunks * room, dtype=torch.int32)
    values = torch.empty(chunks * room, dtype=x.dtype)
    starts, counts = torch.zeros(2, rows, dtype=torch.int64)
    _compress(x.dtype)(
        chunks, x.nbytes, x.detach().contiguous(), which, values, starts, counts, inputs, room,
        rows, chunk,
    )  # fmt: skip
    if int(counts.min()) < 0 or int(counts.sum()) > MAX_DENSITY * x.numel():
        return None
    return Events(which, values, starts, counts)


@cache
def _compress(dtype: torch.dtype) -> Kernel:
    arrays = ("x", "which", "values", "starts", "counts")
    return event_kernel("compress", dtype, arrays, ("inputs", "room", "rows", "chunk"))
