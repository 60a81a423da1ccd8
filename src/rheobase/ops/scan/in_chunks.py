"""Parallel in time, and exact: chunks of time side by side, run again until their ends agree.

Each chunk of a long sequence starts from a guess of its first state. All run at once, as more
columns; then each takes the end of the chunk before it as its start. Once no start changes, the
chunks are the sequence, bit by bit. After k passes the first k chunks are right whatever happens;
but a membrane forgets: a leak shrinks what differs, and a hard reset after the same spike ends it,
so two or three passes are enough (measured: docs/performance.md). The way back is linear in the
gradient of the state, which fades in the same way.

It pays where a GPU has few columns and many steps to go through, one waiting for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["chunks_of", "join", "settle", "split"]

# Where it was measured to win: docs/performance.md.
_LEAST_STEPS, _MOST_COLUMNS = 8192, 8192
_MOST_CHUNKS, _LEAST_LENGTH = 64, 64
_MOST_PASSES = 4


def chunks_of(x: Tensor, values: Sequence[float | Tensor]) -> int:
    """How many chunks to cut a sequence ``[T, ...]`` into; 1 where that would not pay.

    Coefficients ``values`` that vary over time are not cut. No pass can be asked whether it was the
    last while a CUDA graph is captured.
    """
    steps = x.shape[0]
    if steps < _LEAST_STEPS or x[0].numel() > _MOST_COLUMNS:
        return 1
    if any(isinstance(v, Tensor) and v.dim() >= x.dim() for v in values):
        return 1
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return 1
    most = min(_MOST_CHUNKS, steps // _LEAST_LENGTH)
    return next(n for n in range(most, 0, -1) if steps % n == 0)


def split(x: Tensor, chunks: int) -> Tensor:
    """``[T, ...] -> [T / chunks, chunks, ...]``, a copy."""
    return x.unflatten(0, (chunks, -1)).transpose(0, 1).contiguous()  # type: ignore[no-untyped-call, no-any-return]


def join(x: Tensor, into: Tensor) -> Tensor:
    """``[T / chunks, chunks, ...]`` written into a sequence ``[T, ...]``, which is given back."""
    into.unflatten(0, (x.shape[1], -1)).copy_(x.transpose(0, 1))  # type: ignore[no-untyped-call]
    return into


def settle(
    run: Callable[[Tensor], Tensor], starts: Tensor, follow: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """Run until the starts are those that the ends give; None if that takes too long.

    Args:
        run: from the chunks' starts to their ends.
        starts: the first guess.
        follow: from ends to the starts that they mean.

    >>> chunks = torch.tensor([1.0, 0.0, 0.0])  # each adds 1
    >>> settle(lambda u: u + 1.0, chunks, lambda ends: torch.cat([chunks[:1], ends[:-1]])).tolist()
    [1.0, 2.0, 3.0]
    """
    for _ in range(_MOST_PASSES):
        following = follow(run(starts))
        if torch.equal(following, starts):
            return starts
        starts = following
    return None
