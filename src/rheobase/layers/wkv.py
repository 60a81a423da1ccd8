"""RWKV's attention: a mean of values over earlier tokens, weighted by keys and by how long ago."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["weighted_key_values"]

_LONG_AGO = -1e38  # the exponent of what has not been seen


def _nothing_seen(like: Tensor) -> Tensor:
    """The state of `weighted_key_values` before the first token ``like``, ``[3, ..., C]``."""
    zero = torch.zeros_like(like)
    return torch.stack([zero, zero, torch.full_like(like, _LONG_AGO)])


def weighted_key_values(
    k: Tensor, v: Tensor, decay: Tensor, first: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Each token's weighted mean of the values before it, and of its own.

    .. math:: y_t = \frac{\sum_{i<t} e^{-(t-1-i)\,w + k_i} v_i + e^{u+k_t} v_t}
        {\sum_{i<t} e^{-(t-1-i)\,w + k_i} + e^{u+k_t}}

    Sums are carried relative to their largest exponent, so that none overflows. Source: Peng et al.
    2023 (RWKV), arXiv 2305.13048.

    Args:
        k: keys ``[tokens, ..., C]``.
        v: values, of the same shape.
        decay: w, above 0, ``[C]``.
        first: u, ``[C]``.
        state: that after the tokens before; None: there were none.

    Returns:
        The means, and the state after the last token: both sums, and the exponent that they are
        relative to, ``[3, ..., C]``.

    >>> k, v = torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [6.0]])
    >>> means, _ = weighted_key_values(k, v, torch.full((1,), 1e-9), torch.zeros(1))
    >>> means.flatten().tolist()
    [1.0, 1.5, 3.0]
    """
    values, weights, top = _nothing_seen(k[0]) if state is None else state
    means = []
    for k_t, v_t in zip(k, v, strict=True):
        # The exponent taken out cancels, so it needs no gradient.
        now = first + k_t
        largest = torch.maximum(top, now).detach()
        old, new = (top - largest).exp(), (now - largest).exp()
        means.append((old * values + new * v_t) / (old * weights + new))
        faded = top - decay
        top = torch.maximum(faded, k_t).detach()
        old, new = (faded - top).exp(), (k_t - top).exp()
        values, weights = old * values + new * v_t, old * weights + new
    return torch.stack(means), torch.stack([values, weights, top])
