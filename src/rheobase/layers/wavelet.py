"""The Haar wavelet transform of images and sequences, as a matrix product along an axis."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

__all__ = ["haar", "inverse_haar"]


def haar(x: Tensor, axis: int = -1) -> Tensor:
    r"""The orthonormal Haar transform of an axis, coarse to fine.

    The matrix of size 2n is that of size n over pairs, :math:`H_n \otimes (1, 1)`, above the
    differences of pairs, :math:`I_n \otimes (1, -1)`, each row divided by its length.

    Args:
        x: any shape; the axis has a power of two elements.
        axis: the last (-1) or the last but one (-2).

    Raises:
        ValueError: the axis is no power of two long.

    >>> import torch
    >>> haar(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor([1., 1., 0., 0.])
    """
    matrix = x.new_tensor(_matrix(x.shape[axis]))
    return x @ matrix.mT if axis == -1 else matrix @ x


def inverse_haar(x: Tensor, axis: int = -1) -> Tensor:
    """The inverse of `haar`, with the same arguments.

    >>> import torch
    >>> inverse_haar(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor([1., 1., 0., 0.])
    """
    matrix = x.new_tensor(_matrix(x.shape[axis]))
    return x @ matrix if axis == -1 else matrix.mT @ x


@lru_cache(maxsize=32)
def _matrix(n: int) -> list[list[float]]:
    if n & (n - 1):
        raise ValueError(
            f"the Haar transform takes a power of two elements, got {n}; change the image size or "
            "the patch size so that the token grid has such sides"
        )
    return [[value / sum(map(abs, row)) ** 0.5 for value in row] for row in _rows(n)]


def _rows(n: int) -> list[list[float]]:
    """The matrix before its rows are normalised; all entries are 0, 1 or -1."""
    if n == 1:
        return [[1.0]]
    coarse = [[value for value in row for _ in range(2)] for row in _rows(n // 2)]
    fine = [[0.0] * 2 * i + [1.0, -1.0] + [0.0] * (n - 2 * i - 2) for i in range(n // 2)]
    return coarse + fine
