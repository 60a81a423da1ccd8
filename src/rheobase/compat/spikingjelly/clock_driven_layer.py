"""The layers of ``spikingjelly.clock_driven`` 0.0.0.0.12."""

from __future__ import annotations

from rheobase.compat.spikingjelly import layer
from rheobase.compat.spikingjelly.layer import (
    Dropout,
    Dropout2d,
    MultiStepContainer,
    SeqToANNContainer,
)
from rheobase.compat.spikingjelly.layer import (
    ThresholdDependentBatchNorm1d as MultiStepThresholdDependentBatchNorm1d,
)
from rheobase.compat.spikingjelly.layer import (
    ThresholdDependentBatchNorm2d as MultiStepThresholdDependentBatchNorm2d,
)
from rheobase.compat.spikingjelly.layer import (
    ThresholdDependentBatchNorm3d as MultiStepThresholdDependentBatchNorm3d,
)

__all__ = [
    "Dropout",
    "Dropout2d",
    "MultiStepContainer",
    "MultiStepDropout",
    "MultiStepDropout2d",
    "MultiStepThresholdDependentBatchNorm1d",
    "MultiStepThresholdDependentBatchNorm2d",
    "MultiStepThresholdDependentBatchNorm3d",
    "SeqToANNContainer",
]


class MultiStepDropout(layer.Dropout):
    """Dropout of a sequence; one mask, until `reset`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p, step_mode="m")


class MultiStepDropout2d(layer.Dropout2d):
    """`MultiStepDropout` of whole channels."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p, step_mode="m")
