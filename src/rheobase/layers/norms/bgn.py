"""Batch group norm: statistics over the batch and groups of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers.norms.base import SequenceNorm, affine_of

__all__ = ["BGN"]


class BGN(SequenceNorm):
    r"""Batch group norm: :math:`y = \gamma_c\,\hat x + \beta_c`, statistics of groups of channels.

    Mean and variance are over T, N, the pixels and the channels of a group; :math:`\gamma` and
    :math:`\beta` belong to a channel. With as many groups as channels it is batch norm. Running
    statistics serve evaluation, so it folds as batch norm does.

    Reconstruction: TE-Spikformer uses it in its tokenizer in place of batch norm, but its exact
    form was not at hand. Uncertain are the number of groups, whether the statistics of each time
    step are apart, and whether running statistics are kept.

    Args:
        channels: number of channels of ``[T, N, C, ...]``.
        groups: divides ``channels``.
        eps: added to the variance.
        momentum: of the running statistics.

    Raises:
        ValueError: ``groups`` does not divide ``channels``.

    Source: Gao et al. 2024 (TE-Spikformer, Neurocomputing 128268); the norm itself is that of Zhou
    et al. 2020, arXiv 2012.02782.

    >>> BGN(8, groups=2)(torch.randn(4, 3, 8, 5, 5)).shape
    torch.Size([4, 3, 8, 5, 5])
    """

    def __init__(
        self, channels: Size, groups: Size = 4, *, eps: Positive = 1e-5, momentum: Share = 0.1
    ) -> None:
        if groups < 1 or channels % groups:
            raise ValueError(f"groups={groups} does not divide channels={channels}")
        super().__init__(channels)
        self.bn = nn.BatchNorm1d(groups, eps, momentum, affine=False)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def normalise(self, x: Tensor, start: int) -> Tensor:
        """Groups of channels as one channel, then scale and shift of each."""
        steps, samples = x.shape[:2]
        y: Tensor = self.bn(x.reshape(steps * samples, self.bn.num_features, -1))
        return torch.addcmul(self.bias[:, None], y.reshape(x.shape), self.weight[:, None])

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, ``[C]``."""
        scale, shift = (v.repeat_interleave(self.channels // v.numel()) for v in affine_of(self.bn))
        return scale * self.weight, shift * self.weight + self.bias
