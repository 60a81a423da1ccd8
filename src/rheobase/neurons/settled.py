"""A neuron in inference, a step at a time, with the fewest operations around its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rheobase.ops.eager import is_plain
from rheobase.ops.scan import Step, prepared_step

if TYPE_CHECKING:
    from rheobase.neurons.base import Neuron

__all__ = ["SettledSteps"]


class SettledSteps:
    """The steps of one neuron, for every layout of input that it has met.

    What a call needs beside input and state (which kernel, coefficients, strides) is found out once
    and does not change any more, whatever becomes of the neuron's attributes, until its parameters
    change or weights are loaded. (Through ``.data`` they change unseen, but for a call with
    gradients in between.)
    """

    def __init__(self) -> None:
        self._steps: dict[object, Step] = {}
        self._parameters: tuple[Tensor, ...] = ()
        self._versions: list[int] = []

    def __call__(self, neuron: Neuron, x: Tensor) -> Tensor | None:
        """Spikes of one step ``[1, N, ...]``, or None where another way must be taken."""
        if torch.is_grad_enabled():
            self._steps.clear()
            return None
        if x.shape[0] != 1 or not x.is_cpu or not is_plain(x):
            return None
        if self._versions != [p._version for p in self._parameters]:
            self._steps.clear()
        layout = (x.shape, x.stride(), x.dtype, neuron.to_bytes)
        step = self._steps.get(layout)
        if step is None:
            step = prepared_step(
                x, neuron.rest, neuron.spec, neuron.coefficients(x), neuron.to_bytes
            )
            if step is None:
                return None
            self._steps[layout] = step
            self._parameters = tuple(neuron.parameters())
            self._versions = [p._version for p in self._parameters]
        carried = neuron.carried
        if carried is not None and carried.shape != neuron.state_shape(x):
            return None
        spikes, last = step(x, carried)
        neuron.carry(last)
        return spikes

    def __deepcopy__(self, memo: object) -> SettledSteps:
        return SettledSteps()

    def __reduce__(self) -> tuple[type[SettledSteps], tuple[()]]:
        return SettledSteps, ()
