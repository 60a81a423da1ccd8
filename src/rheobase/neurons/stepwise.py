"""Neurons whose step is no scan of one membrane: written step by step in PyTorch.

An eager call runs them by a kernel that is made of the step (`rheobase.ops.steps`); else autograd
unrolls it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import ClassVar

import torch
from torch import Tensor, nn

from rheobase.neurons.base import Neuron, Tap
from rheobase.ops.eager import is_plain, is_seen_by_nobody, is_transformed
from rheobase.ops.gpu import HAS_TRITON
from rheobase.ops.scan.layout import compute_dtype, stacked_like, steps_of
from rheobase.ops.scan.reference import with_surrogate
from rheobase.ops.steps import Program, Untraceable, run_steps, trace_step
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

    It sets ``states``, and implements `start` and `step`. Checks, taps and streaming are those of
    `Neuron`.

    Attributes:
        fused: whether a kernel may be made of `step`. It must then be the same arithmetic for every
            column, on ``x``, the states and what the neuron has in attributes that are numbers,
            words or truth values. A step that does more than arithmetic on single columns is found
            out, and unrolled; so is that of a neuron that has other attributes.
    """

    scanned = False
    fused: ClassVar[bool] = False

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
        computed = x.to(compute_dtype(x))
        program = self._program(computed)
        if program is None:
            spikes, membranes, last = self._unrolled(computed, carried, tap)
        else:
            first = _stacked(self.start(computed[0]), computed) if carried is None else carried
            first = first if self.states > 1 else first.reshape(1, *computed.shape[1:])
            spikes, membranes, last = run_steps(program, computed, first, tap or "")
            last = last if self.states > 1 else last[0]
        return spikes.to(x.dtype), membranes, last

    def _unrolled(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        steps = steps_of(x)
        state = self.start(steps[0]) if carried is None else _unstacked(carried, self.states)
        spikes: list[Tensor] = []
        membranes: list[Tensor] = []
        for x_t in steps:
            s, h, state = self.step(x_t, state)
            spikes.append(s)
            membranes.append(state[0] if tap == "v" else h)
        tapped = stacked_like(membranes, x) if tap else None
        return stacked_like(spikes, x), tapped, _stacked(state, x)

    def _program(self, x: Tensor) -> Program | None:
        """The step as a kernel takes it, where one is worth it."""
        on = x.device.type
        if not (on == "cpu" or (on == "cuda" and HAS_TRITON)):
            return None
        if not self.fused or not is_seen_by_nobody(x):
            return None
        if type(self.surrogate).parameters_for is not Surrogate.parameters_for:
            return None  # drawn at every call
        options = self.surrogate.parameters_for(x).values()
        if any(isinstance(value, Tensor) for value in options):
            return None
        own = {name: value for name, value in vars(self).items() if name not in _NOT_OF_THE_STEP}
        if not all(isinstance(value, _PLAIN) for value in own.values()):
            return None
        made_of = (type(self), x.dtype, type(self.surrogate), *options, *own.items())
        if made_of not in _programs:
            if len(_programs) >= _MOST_PROGRAMS:
                _programs.clear()
            _programs[made_of] = self._trace(x.dtype)
        return _programs[made_of]

    def _trace(self, dtype: torch.dtype) -> Program | None:
        try:
            program = trace_step(self.step, self.states, dtype)
        except Untraceable:
            return None
        # Of float64's exp a loop makes no vectors; PyTorch's own operations are the faster ones.
        return None if dtype == torch.float64 and program.takes_exp else program


# What neurons were traced into, by all that the trace depends on.
_programs: dict[Hashable, Program | None] = {}
_MOST_PROGRAMS = 1024

_PLAIN = (bool, int, float, str, tuple, type(None))
_NOT_OF_THE_STEP = {*vars(nn.Module()), "_state", "_streams", "_detaches"} - {"training"}


def _stacked(state: State, x: Tensor) -> Tensor:
    return stacked_like(state, x) if len(state) > 1 else state[0]


def _unstacked(carried: Tensor, states: int) -> State:
    return carried.unbind(0) if states > 1 else (carried,)
