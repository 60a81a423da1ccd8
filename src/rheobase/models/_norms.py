"""Norms that convolutional networks choose by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import BNTT, TAB, TEBN, ThresholdDependentBatchNorm2d

__all__ = ["NormName", "Norms", "check_norm"]

NormName = Literal["batch", "tdbn", "bntt", "tebn", "tab"]


class Norms:
    """Makes the norms of a network: of a current that meets a neuron alone, or summed with another.

    Args:
        kind: "batch" (statistics over time and batch), "tdbn", "bntt", "tebn" or "tab".
        steps: T, to which "bntt", "tebn" and "tab" are tied.
        neuron: one of those behind; "tdbn" scales to its threshold (where channels learn theirs, to
            the mean of what they start from).
    """

    def __init__(self, kind: NormName, steps: int, neuron: nn.Module) -> None:
        self.kind = kind
        self.steps = steps
        threshold = getattr(neuron, "v_threshold", 1.0)
        if isinstance(threshold, Tensor):
            # On the meta device there are shapes only.
            threshold = 1.0 if threshold.is_meta else threshold.detach().double().mean()
        self.v_threshold = float(threshold)

    def __call__(self, width: int, summed: bool = False) -> nn.Module:
        """A norm of ``width`` channels."""
        if self.kind == "batch":
            return nn.BatchNorm2d(width)
        if self.kind == "tdbn":
            alpha = math.sqrt(0.5) if summed else 1.0
            return ThresholdDependentBatchNorm2d(width, self.v_threshold, alpha)
        over_time: dict[str, Callable[[int, int], nn.Module]]
        over_time = {"bntt": BNTT, "tebn": TEBN, "tab": TAB}
        return over_time[self.kind](width, self.steps)


def check_norm(name: str) -> None:
    """Refuse a norm that there is not.

    Raises:
        ValueError: the nearest name is offered.
    """
    if name not in get_args(NormName):
        raise ValueError(unknown_name("norm", name, get_args(NormName)))
