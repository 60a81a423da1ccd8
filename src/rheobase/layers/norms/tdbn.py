"""Batch norm that knows the threshold of the neuron behind it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers.norms.base import Foldable, affine_of

__all__ = ["ThresholdDependentBatchNorm2d"]


class ThresholdDependentBatchNorm2d(Foldable, nn.BatchNorm2d):
    r"""Threshold-dependent batch norm: :math:`y = \gamma\,\alpha V_{th}\,\hat x + \beta`.

    It scales what reaches a neuron to its threshold. Called through `rheobase.layers.over_time`, so
    that statistics are taken over T and N together; parameters, buffers and their names are those
    of `nn.BatchNorm2d`.

    Two readings of the paper are in use: ``"constant"`` (the authors' code) keeps
    :math:`\alpha V_{th}` as a factor, ``"initial"`` (SpikingJelly) only starts :math:`\gamma` from
    it. They are the same functions but train differently, and their checkpoints are not
    interchangeable.

    Args:
        channels: number of channels of ``[N, C, H, W]``.
        v_threshold: threshold of the neuron behind it.
        alpha: 1, or 1/sqrt(2) in each of two branches that are summed.
        reading: "constant" or "initial".
        eps: added to the variance.
        momentum: of the running statistics.

    Raises:
        ValueError: a threshold or alpha that is not above 0, or another reading.

    Source: Zheng et al. 2021, arXiv 2011.05280, eq. 6 to 9.

    >>> ThresholdDependentBatchNorm2d(2, v_threshold=0.5)(torch.randn(8, 2, 4, 4)).std() < 0.6
    tensor(True)
    """

    def __init__(
        self,
        channels: Size,
        v_threshold: Positive = 1.0,
        alpha: Positive = 1.0,
        reading: Literal["constant", "initial"] = "constant",
        *,
        eps: Positive = 1e-5,
        momentum: Share = 0.1,
    ) -> None:
        if reading not in ("constant", "initial"):
            raise ValueError(f"reading is 'constant' or 'initial', got {reading!r}")
        self._start = alpha * v_threshold if reading == "initial" else 1.0
        super().__init__(channels, eps=eps, momentum=momentum)
        self.scale = alpha * v_threshold if reading == "constant" else 1.0

    def reset_parameters(self) -> None:
        """Start with the reading's gamma and a zero shift."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self._start)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        if self.folded:
            scale, shift = self.get_buffer("folded_scale"), self.get_buffer("folded_shift")
            y = torch.addcmul(shift.view(-1, 1, 1), input, scale.view(-1, 1, 1))
            return y.to(input.dtype)
        if self.scale == 1.0:
            return super().forward(input)
        # The affine map scale * (gamma x + beta) + (1 - scale) * beta is gamma scale x + beta.
        y = super().forward(input)
        return torch.lerp(self.bias.view(-1, 1, 1).to(y.dtype), y, self.scale)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift in evaluation, ``[C]``."""
        scale, shift = affine_of(self)
        return self.scale * scale, torch.lerp(self.bias, shift, self.scale)
