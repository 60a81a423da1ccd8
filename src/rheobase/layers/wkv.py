"""RWKV's attention: a mean of values over earlier tokens, weighted by keys and by how long ago."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["weighted_key_values"]


def weighted_key_values(k: Tensor, v: Tensor, decay: Tensor, first: Tensor) -> Tensor:
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

    >>> k, v = torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [6.0]])
    >>> weighted_key_values(k, v, torch.full((1,), 1e-9), torch.zeros(1)).flatten().tolist()
    [1.0, 1.5, 3.0]
    """
    top = torch.full_like(k[0], -1e38)
    above, below = torch.zeros_like(v[0]), torch.zeros_like(v[0])
    means = []
    for key, value in zip(k, v, strict=True):
        now = torch.maximum(top, first + key)
        old, new = (top - now).exp(), (first + key - now).exp()
        means.append((old * above + new * value) / (old * below + new))
        now = torch.maximum(top - decay, key)
        old, new = (top - decay - now).exp(), (key - now).exp()
        above, below, top = old * above + new * value, old * below + new, now
    return torch.stack(means)
