"""Whether an input is one for a layer: kernels see lines of memory, and would not notice."""

from __future__ import annotations

from torch import Tensor

__all__ = ["fits"]


def fits(
    x: Tensor,
    weight: Tensor,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    bias: Tensor | None = None,
) -> bool:
    """Whether a layer of this weight takes ``x``; what does not, PyTorch's own refuses in words.

    Args:
        x: ``[..., inputs]`` for a linear layer, ``[N, C, H, W]`` for a convolution.
        weight: ``[outputs, inputs]`` or ``[O, C / groups, h, w]``.
        padding: of the convolution, on either side, down and right.
        groups: of the convolution.
        bias: one number for each output, or None.
    """
    if bias is not None and bias.shape != weight.shape[:1]:
        return False
    if weight.dim() == 2:
        return x.dim() > 0 and x.shape[-1] == weight.shape[1]
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        return False
    spans = zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    return all(size + 2 * zeros >= window for size, zeros, window in spans)
