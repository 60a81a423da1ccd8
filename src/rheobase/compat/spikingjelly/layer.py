"""The layers of ``spikingjelly.activation_based`` 0.0.0.0.14.

Those that do not know time are the layers of `torch.nn` with a ``step_mode``: "s" takes a step,
"m" a sequence ``[T, N, ...]``, with time folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.compat.spikingjelly.base import MemoryModule, MultiStepModule, StepModule
from rheobase.compat.spikingjelly.functional import multi_step_forward, seq_to_ann_forward

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GroupNorm",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MultiStepContainer",
    "SeqToANNContainer",
    "StepModeContainer",
    "ThresholdDependentBatchNorm1d",
    "ThresholdDependentBatchNorm2d",
    "ThresholdDependentBatchNorm3d",
    "VotingLayer",
]


class _Stateless(StepModule):
    """Adds ``step_mode`` to a layer of `torch.nn`, which comes after it among the bases."""

    def __init__(self, *args: Any, step_mode: str = "s", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step_mode = step_mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A step or a sequence, as ``step_mode`` says."""
        own: Callable[..., Any] = super().forward  # type: ignore[misc]
        if self.step_mode == "s":
            return own(*args, **kwargs)
        return seq_to_ann_forward(args[0], own)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown: str = super().extra_repr()  # type: ignore[misc]
        return f"{shown}, step_mode={self.step_mode}"


class Conv1d(_Stateless, nn.Conv1d):
    """`torch.nn.Conv1d` with a step mode."""


class Conv2d(_Stateless, nn.Conv2d):
    """`torch.nn.Conv2d` with a step mode."""


class Conv3d(_Stateless, nn.Conv3d):
    """`torch.nn.Conv3d` with a step mode."""


class ConvTranspose1d(_Stateless, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with a step mode."""


class ConvTranspose2d(_Stateless, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a step mode."""


class ConvTranspose3d(_Stateless, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with a step mode."""


class BatchNorm1d(_Stateless, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` with a step mode."""


class BatchNorm2d(_Stateless, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with a step mode."""


class BatchNorm3d(_Stateless, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` with a step mode."""


class GroupNorm(_Stateless, nn.GroupNorm):
    """`torch.nn.GroupNorm` with a step mode."""


class MaxPool1d(_Stateless, nn.MaxPool1d):
    """`torch.nn.MaxPool1d` with a step mode."""


class MaxPool2d(_Stateless, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` with a step mode."""


class MaxPool3d(_Stateless, nn.MaxPool3d):
    """`torch.nn.MaxPool3d` with a step mode."""


class AvgPool1d(_Stateless, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` with a step mode."""


class AvgPool2d(_Stateless, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` with a step mode."""


class AvgPool3d(_Stateless, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` with a step mode."""


class AdaptiveAvgPool1d(_Stateless, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` with a step mode."""


class AdaptiveAvgPool2d(_Stateless, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` with a step mode."""


class AdaptiveAvgPool3d(_Stateless, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d` with a step mode."""


class Linear(_Stateless, nn.Linear):
    """`torch.nn.Linear` with a step mode."""


class Flatten(_Stateless, nn.Flatten):
    """`torch.nn.Flatten` with a step mode."""


class MultiStepContainer(nn.Sequential, MultiStepModule):
    """Modules of one step, called on every step of a sequence."""

    def forward(self, x_seq: Tensor) -> Any:
        """``[T, N, ...]``."""
        return multi_step_forward(x_seq, super().forward)


class SeqToANNContainer(nn.Sequential, MultiStepModule):
    """Modules that do not know time, called once on all steps of a sequence."""

    def forward(self, x_seq: Tensor) -> Any:
        """``[T, N, ...]``."""
        return seq_to_ann_forward(x_seq, super().forward)


class StepModeContainer(nn.Sequential, StepModule):
    """Modules in step mode "s", whose mode `set_step_mode` leaves alone.

    Args:
        stateful: whether they remember, and so go through a sequence step by step.
        args: the modules.
    """

    def __init__(self, stateful: bool, *args: nn.Module) -> None:
        super().__init__(*args)
        self.stateful = stateful
        self.step_mode = "s"

    def forward(self, x: Tensor) -> Any:
        """A step or a sequence, as ``step_mode`` says."""
        if self.step_mode == "s":
            return super().forward(x)  # type: ignore[no-untyped-call]
        through = multi_step_forward if self.stateful else seq_to_ann_forward
        return through(x, super().forward)


class Dropout(MemoryModule):
    """Dropout whose mask lasts until `reset`.

    Args:
        p: probability that an element is dropped.
        step_mode: "s" or "m".
    """

    drop = staticmethod(F.dropout)
    mask: Any

    def __init__(self, p: float = 0.5, step_mode: str = "s") -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"p must be in [0, 1), got {p}")
        self.step_mode = step_mode
        self.register_memory("mask", None)
        self.p = p

    def single_step_forward(self, x: Tensor) -> Tensor:
        """A step ``[N, ...]``."""
        return x * self._mask(x) if self.training else x

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """A sequence ``[T, N, ...]``, the same mask for every step."""
        return x_seq * self._mask(x_seq[0]) if self.training else x_seq

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"p={self.p}"

    def _mask(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = self.drop(torch.ones_like(x.detach()), self.p)
        mask: Tensor = self.mask
        return mask


class Dropout2d(Dropout):
    """`Dropout` of whole channels."""

    drop = staticmethod(F.dropout2d)

    def __init__(self, p: float = 0.2, step_mode: str = "s") -> None:
        super().__init__(p, step_mode)


class VotingLayer(_Stateless, nn.AvgPool1d):
    """The mean of every ``voting_size`` outputs: ``[N, C * voting_size] -> [N, C]``."""

    def __init__(self, voting_size: int = 10, step_mode: str = "s") -> None:
        super().__init__(voting_size, step_mode=step_mode)
        self.voting_size = voting_size


class _ThresholdDependent(MultiStepModule):
    """Batch norm of a sequence whose weights start at ``alpha * v_th`` (tdBN's)."""

    def __init__(self, alpha: float, v_th: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step_mode = "m"
        self.alpha, self.v_th = alpha, v_th
        weight: Tensor = self.weight  # type: ignore[attr-defined]
        nn.init.constant_(weight, alpha * v_th)

    def forward(self, x_seq: Tensor) -> Tensor:
        """``[T, N, C, ...]``."""
        return seq_to_ann_forward(x_seq, super().forward)  # type: ignore[misc]


class ThresholdDependentBatchNorm1d(_ThresholdDependent, nn.BatchNorm1d):
    """Of ``[T, N, C]`` or ``[T, N, C, L]``."""


class ThresholdDependentBatchNorm2d(_ThresholdDependent, nn.BatchNorm2d):
    """Of ``[T, N, C, H, W]``."""


class ThresholdDependentBatchNorm3d(_ThresholdDependent, nn.BatchNorm3d):
    """Of ``[T, N, C, D, H, W]``."""
