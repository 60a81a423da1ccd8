"""A LIF whose gradient stays within each time step."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.neurons.base import Tap
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.ops.scan import scan

__all__ = ["DetachedLIF"]


class DetachedLIF(LIF):
    """LIF whose membrane is detached before every step: same spikes, no gradient through time.

    BrainCog's ``MyNode`` with ``mem_detach=True``. Arguments are those of `LIF`; what
    ``detach_reset`` cuts is cut in any case.

    >>> x = torch.full((2, 1), 1.5, requires_grad=True)
    >>> DetachedLIF()(x).sum().backward()
    >>> torch.allclose(x.grad[0], LIF().surrogate(torch.tensor([-0.25])) / 2)
    True
    """

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Neuron.run`.

        Raises:
            ValueError: a membrane is asked for.
        """
        if tap is not None:
            raise ValueError("the membrane of a DetachedLIF has no gradient to give; use LIF")
        with torch.no_grad():
            _, after, last = super().run(x, carried, "v")
        assert after is not None
        first = torch.full_like(after[0], self.rest) if carried is None else carried
        before = torch.cat([first.unsqueeze(0), after[:-1]])
        # Every step as a sequence of its own, from the membrane that the step before has left.
        steps = x.flatten(0, 1).unsqueeze(0)
        spikes = scan(steps, before.flatten(0, 1), self.spec, self.coefficients(steps))[0]
        return spikes.reshape(x.shape), None, last
