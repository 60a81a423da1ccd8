"""Neurons whose step is no scan of one membrane: written step by step in PyTorch."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rheobase.neurons.base import Neuron, Tap
from rheobase.ops.eager import is_plain, is_transformed
from rheobase.ops.scan.layout import compute_dtype
from rheobase.ops.scan.reference import with_surrogate
from rheobase.surrogate import Surrogate

__all__ = ["StepNeuron", "spike"]

State = tuple[Tensor, ...]


def spike(z: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """1 where ``z >= 0`` (``z > 0`` if strict), else 0; its gradient is the surrogate's.

    >>> from rheobase.surrogate import ATan
    >>> spike(torch.tensor([-0.5, 0.0, 0.5]), ATan())
    tensor([0., 1., 1.])
    """
    s = ((z > 0.0) if strict else (z >= 0.0)).to(z.dtype)
    if not torch.is_grad_enabled() and is_plain(z) and not is_transformed():
        return s  # nobody asks for the gradient
    return with_surrogate(s, z, type(surrogate), list(surrogate.parameters_for(z).values()))


class StepNeuron(Neuron):
    """Base of neurons with several coupled states: a subclass writes one step, in PyTorch.

    It sets ``states``, and implements `start` and `step`. Autograd differentiates the unrolled
    steps; checks, taps and streaming are those of `Neuron`.
    """

    scanned = False

    def start(self, x: Tensor) -> State:
        """The states before the first step, each like one step ``x`` of the input ``[N, ...]``."""
        return (torch.full_like(x, self.rest), *(torch.zeros_like(x),) * (self.states - 1))

    @abstractmethod
    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """One step: input ``[N, ...]`` to spikes, the charged membrane and the next states.

        The first of the states is the membrane after reset.
        """

    def spike(self, z: Tensor) -> Tensor:
        """Fire at ``z``, as far above threshold as it is: see `spike`."""
        return spike(z, self.surrogate, self.strict)

    def reset_membrane(self, h: Tensor, s: Tensor, threshold: float | Tensor) -> Tensor:
        """The membrane after spikes ``s``: hard, or soft by ``threshold``."""
        s = s.detach() if self.detach_reset else s
        if self.v_reset is None:
            return h - s * threshold
        return h * (1.0 - s) + self.v_reset * s

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Every step in turn; halves are computed in float32."""
        steps = x.to(compute_dtype(x)).unbind(0)
        state = self.start(steps[0]) if carried is None else _unstacked(carried, self.states)
        spikes: list[Tensor] = []
        membranes: list[Tensor] = []
        for x_t in steps:
            s, h, state = self.step(x_t, state)
            spikes.append(s)
            membranes.append(state[0] if tap == "v" else h)
        last = torch.stack(state) if self.states > 1 else state[0]
        return (
            torch.stack(spikes).to(x.dtype),
            torch.stack(membranes) if tap else None,
            last,
        )


def _unstacked(carried: Tensor, states: int) -> State:
    return carried.unbind(0) if states > 1 else (carried,)
