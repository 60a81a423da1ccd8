"""Coefficients that are made of what a neuron learns, within the scan's own node of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["LearntCoefficients"]

Tensors = Sequence[Tensor]


class LearntCoefficients(NamedTuple):
    """How some of a neuron's coefficients follow from its parameters.

    As a node of their own, a few hundred numbers take a tenth of the time of the scan that runs on
    them: what they cost is calls, not arithmetic.

    Attributes:
        names: of the coefficients.
        parameters: that they are made of.
        make: from the parameters to the coefficients, and to what ``back`` needs.
        back: from that and the coefficients' gradients to the parameters'.
        followed: the coefficients by name as autograd follows them, for all that is not an eager
            call on the kernels.
    """

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    make: Callable[[Tensors], tuple[Tensors, tuple[Tensor, ...]]]
    back: Callable[[Tensors, Tensors], Tensors]
    followed: Callable[[], Mapping[str, float | Tensor]]
