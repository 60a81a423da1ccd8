"""What networks of texts refuse at the door."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.ops.eager import is_seen_by_nobody

__all__ = ["check_ids"]


def check_ids(ids: Tensor, vocabulary: int) -> None:
    """Refuse what is no matrix of numbers of words.

    Args:
        ids: what the network was given.
        vocabulary: how many words it knows.

    Raises:
        TypeError: they are not int64.
        ValueError: another rank, none at all, or (on the CPU, where to look costs nothing) a number
            that is no word's.
    """
    shape = list(ids.shape)
    if ids.dtype != torch.int64:
        raise TypeError(f"the network takes numbers of words, int64, got {ids.dtype}")
    if ids.dim() != 2:
        raise ValueError(
            f"the network takes a matrix of numbers of words, one text or more, got {shape}; a "
            "single text becomes ids.unsqueeze(...) along the axis of texts"
        )
    if 0 in shape:
        raise ValueError(f"the network got an empty input, shape {shape}: no text or no word")
    if ids.is_cpu and is_seen_by_nobody(ids):
        low, high = map(int, ids.aminmax())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"the text has words {low}...{high}, the network knows 0...{vocabulary - 1}; build "
                f"it with vocabulary={high + 1} at least (of a run: model.overrides.vocabulary)"
            )
