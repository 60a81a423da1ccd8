"""Streaming: a network fed in pieces gives what one call on the whole sequence gives.

Outside `streaming`, nothing survives a call. Inside, every stateful module keeps its state from
one call to the next, detached from the graph, so a later ``backward`` never reaches an earlier
chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rheobase._numbers import NumbersChecked

__all__ = ["Stateful", "Stream", "resumed", "streaming"]


class Stateful(NumbersChecked, nn.Module):
    """A module with memory over time.

    A causal subclass reads ``self.carried`` as its state before the first step (None: start anew)
    and calls ``self.carry(state)`` after the last. Both do nothing outside `streaming`. One whose
    output at a step depends on later steps sets ``causal = False`` and cannot stream.
    """

    causal: bool = True
    # Plain attributes, never buffers: state is no part of the weights.
    _streams: bool = False
    _state: Tensor | None = None
    _detaches: bool = True

    @property
    def carried(self) -> Tensor | None:
        """The state left by the call before, or None."""
        return self._state if self._streams else None

    def carry(self, state: Tensor) -> None:
        """Keep the state for the next call, if streaming."""
        if self._streams:
            # Past nn.Module, which would look whether it is a parameter.
            object.__setattr__(self, "_state", state.detach() if self._detaches else state)


class Stream:
    """The state of a streaming network, to be saved and restored."""

    def __init__(self, modules: dict[str, Stateful]) -> None:
        self._modules = modules

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every module's state, by module name; empty before the first call."""
        kept = ((name, module._state) for name, module in self._modules.items())
        return {name: state.clone() for name, state in kept if state is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            KeyError: the state names a module that this network does not have.
        """
        unknown = sorted(set(state) - set(self._modules))
        if unknown:
            raise KeyError(f"state of modules that this network does not have: {unknown}")
        for name, module in self._modules.items():
            module._state = state[name].clone() if name in state else None

    def reset(self) -> None:
        """Forget all state: the next call starts a new sequence."""
        self.load_state_dict({})


@contextmanager
def resumed(module: Stateful, state: Tensor | None) -> Iterator[None]:
    """Let a module start from ``state`` (None: anew), into which gradients flow, and keep nothing.

    For networks that feed back from one step to the next and so go through time step by step.

    >>> import torch
    >>> from rheobase.neurons import IF
    >>> neuron, v = IF(), torch.full((1,), 0.75, requires_grad=True)
    >>> with resumed(neuron, v):
    ...     spikes = neuron(torch.full((1, 1), 0.25))
    >>> spikes.item(), neuron.carried
    (1.0, None)
    """
    kept = module._streams, module._state
    module._streams, module._state = True, state
    try:
        yield
    finally:
        module._streams, module._state = kept


@contextmanager
def streaming(net: nn.Module, *, norms_by_piece: bool = False) -> Iterator[Stream]:
    """Keep the state of ``net`` between calls, until the block ends.

    Args:
        net: a causal network, called on pieces ``[t, N, ...]`` of a sequence ``[T, N, ...]``. A
            module has one state, so each place of the network needs a neuron of its own: one that
            is called at two places would go on from the other's.
        norms_by_piece: let batch norm in training mode take each piece's own statistics, as
            online learning does, instead of refusing it; pieces then no longer equal one call.

    Raises:
        ValueError: a module needs the whole sequence (it is not causal), batch norm is in
            training mode (its statistics need the whole sequence), or ``net`` streams already.

    >>> import torch, rheobase
    >>> net, x = rheobase.neurons.LIF(), torch.rand(6, 1, 3)
    >>> with rheobase.streaming(net):
    ...     pieces = torch.cat([net(x[:2]), net(x[2:])])
    >>> torch.equal(pieces, net(x))
    True
    """
    modules = {name: m for name, m in net.named_modules() if isinstance(m, Stateful)}
    _refuse_acausal(net, modules, norms_by_piece)
    for module in modules.values():
        module._streams, module._state = True, None
    try:
        yield Stream(modules)
    finally:
        for module in modules.values():
            module._streams, module._state = False, None


def _refuse_acausal(net: nn.Module, modules: dict[str, Stateful], norms_by_piece: bool) -> None:
    for name, module in net.named_modules():
        where = f"{name or 'the network'} ({type(module).__name__})"
        if not getattr(module, "causal", True):
            raise ValueError(f"{where} is not causal: it needs the whole sequence in one call")
        if isinstance(module, _BatchNorm) and module.training and not norms_by_piece:
            raise ValueError(
                f"{where} is in training mode, and its statistics need the whole sequence in one "
                "call; call net.eval() before streaming"
            )
    if any(module._streams for module in modules.values()):
        raise ValueError("this network is streaming already; leave that block first")
