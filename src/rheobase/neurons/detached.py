"""A LIF whose gradient stays within each time step."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from rheobase.neurons.base import Tap
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.ops.packed import mark
from rheobase.ops.scan import scan

__all__ = ["DetachedLIF"]


class DetachedLIF(LIF):
    """LIF whose membrane is detached before every step: same spikes, no gradient through time.

    BrainCog's ``MyNode`` with ``mem_detach=True``. Arguments are those of `LIF`; what
    ``detach_reset`` cuts is cut in any case.

    >>> x = torch.full((2, 1), 1.5, requires_grad=True)
    >>> DetachedLIF()(x).sum().backward()
    >>> (x.grad[0] == LIF().surrogate(torch.tensor([-0.25])) / 2).item()
    True
    """

    @overload
    def forward(self, x: Tensor, tap: None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, tap: Tap) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of the whole sequence, see `Neuron.forward`.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: see `Neuron.forward`; or a membrane is asked for.
        """
        if tap is not None:
            raise ValueError("the membrane of a DetachedLIF has no gradient to give; use LIF")
        first = self.carried
        with torch.no_grad():
            after = super().forward(x, "v")[1]
        if first is None:
            first = torch.full_like(after[0], self.rest)
        before = torch.cat([first.unsqueeze(0), after[:-1]])
        # Every step as a sequence of its own, from the membrane that the step before has left.
        steps = x.flatten(0, 1).unsqueeze(0)
        spikes = scan(steps, before.flatten(0, 1), self.spec, self.coefficients(steps))[0]
        return mark(spikes.reshape(x.shape), largest=1)
