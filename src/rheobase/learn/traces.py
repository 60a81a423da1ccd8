"""Presynaptic traces: what OTTT puts into the gradients of weights in the place of spikes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rheobase.neurons import Neuron

__all__ = ["decay_of", "presynaptic_traces"]


@contextmanager
def presynaptic_traces(net: nn.Module, decay: float | None = None) -> Iterator[None]:
    """Within the block, weights fed by neurons get the gradient of a trace of their input.

    The network is to be called step by step. Its outputs, and the gradients that flow on to
    earlier layers, are as ever.

    Args:
        net: whose convolutions and linear layers are meant.
        decay: of the traces; None takes that of the neuron which ran last before the layer.

    Raises:
        ValueError: a neuron has no decay factor of its own, and none is given.
    """
    traces = _Traces()
    neurons = [m for m in net.modules() if isinstance(m, Neuron)]
    decays = [decay_of(neuron) if decay is None else decay for neuron in neurons]
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]
    hooks = [net.register_forward_pre_hook(traces.begin_step)]
    for neuron, own in zip(neurons, decays, strict=True):
        hooks.append(neuron.register_forward_hook(partial(traces.pass_by, own)))
    for layer in layers:
        # An attribute of this instance, which hides the method until it is deleted.
        layer.forward = partial(traces.output, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            del layer.forward


def decay_of(neuron: Neuron) -> float:
    """The factor by which a neuron's membrane is multiplied from step to step.

    Raises:
        ValueError: it has no single one.

    >>> from rheobase.neurons import IF, LIF
    >>> decay_of(LIF(tau=2.0)), decay_of(IF())
    (0.5, 1.0)
    """
    factor = neuron.leak_factor
    if factor is None:
        raise ValueError(
            f"OTTT needs the decay factor of {type(neuron).__name__}, whose membrane has no single "
            "one; give decay= (rule.options={decay: 0.5})"
        )
    return factor


class _Traces:
    """The traces of one sequence."""

    def __init__(self) -> None:
        self.of: dict[nn.Module, Tensor] = {}
        self.decay: float | None = None  # of the neuron that ran last in this step; None: none did

    def begin_step(self, net: nn.Module, inputs: Any) -> None:
        self.decay = None

    def pass_by(self, decay: float, neuron: nn.Module, inputs: Any, output: Any) -> None:
        self.decay = decay

    def output(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What the layer puts out; the gradient by its weights is taken at the trace of ``x``."""
        plain = type(layer).forward
        if self.decay is None:
            return plain(layer, x)  # type: ignore[no-any-return]
        before = self.of.get(layer)
        trace = x.detach() if before is None else self.decay * before + x.detach()
        self.of[layer] = trace
        with _fixed(layer):
            y: Tensor = plain(layer, x)
        of_trace: Tensor = plain(layer, trace)
        return y + (of_trace - of_trace.detach())


@contextmanager
def _fixed(layer: nn.Module) -> Iterator[None]:
    """Within the block, the layer's parameters are constants."""
    learnt = [p for p in layer.parameters() if p.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_()
