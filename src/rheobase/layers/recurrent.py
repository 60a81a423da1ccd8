"""A layer of spiking neurons that hear each other: recurrent LIF, CUBA-LIF and ALIF networks."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rheobase._numbers import Size
from rheobase.layers._checks import check_sequence
from rheobase.neurons import ALIF, CUBALIF, Neuron
from rheobase.ops.packed import mark
from rheobase.ops.recurrent import Cell, recurrent_reference, recurrent_scan
from rheobase.ops.recurrent.cell import first_state
from rheobase.ops.scan import ScanSpec
from rheobase.ops.scan.layout import compute_dtype
from rheobase.stateful import Stateful

__all__ = ["Recurrent"]


class Recurrent(Stateful):
    r"""``s_t = neuron(x_t + W s_{t-1})`` over a whole sequence: the layer's own spikes come back.

    The input's weights are an ordinary layer before it, computed for all steps in one product:
    ``over_time(x, nn.Linear(700, 128), Recurrent(128, LIF()))``. What is left to do step by step is
    the recurrent product and the neuron. Backward is exact backpropagation through time, written
    down (no graph of T steps); the recurrent weight's gradient is one product over all steps.

    Source: Bellec et al. 2018, arXiv 1803.09574 (ALIF); Cramer et al. 2020, arXiv 1910.07407 (LIF
    and CUBA-LIF on spoken digits).

    Args:
        features: number of neurons F.
        neuron: any neuron of the scan that fires on one side, `CUBALIF` (its synaptic current takes
            input and feedback alike) or `ALIF`. It lends its equations and parameters and is never
            called itself, so hooks on it see nothing. Neither is ``feedback``, but pruning and
            norms of its weight count.

    Raises:
        TypeError: the neuron's step is none of those; the input is not floating point.
        ValueError: the input has another number of features, or is no ``[T, N, F]``.

    >>> import torch
    >>> from rheobase.layers import over_time
    >>> from rheobase.neurons import LIF
    >>> over_time(torch.rand(100, 8, 700), nn.Linear(700, 128), Recurrent(128, LIF())).shape
    torch.Size([100, 8, 128])
    """

    def __init__(self, features: Size, neuron: Neuron) -> None:
        super().__init__()
        _check(neuron)
        self.feedback = nn.Linear(features, features, bias=False)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """Input currents ``[T, N, F]`` to spikes of the same shape and dtype."""
        check_sequence(self, x, self.feedback.in_features)
        if x.dim() != 3 or 0 in x.shape:
            raise ValueError(f"Recurrent takes [T, N, F], none of them 0, got {list(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"Recurrent takes floating point input, got {x.dtype}; call x.float()")
        current = x.to(compute_dtype(x))
        weight = _weight(self.feedback).to(current.dtype)
        carried = self.carried
        state = first_state(current, self.neuron.rest) if carried is None else carried
        cell, coefficients = _cell(self.neuron, current)
        scan = recurrent_scan if self._detaches else recurrent_reference
        with torch.autocast(x.device.type, enabled=False):
            spikes, last = scan(current, weight, state, cell, coefficients)
        self.carry(last)
        spikes = spikes.to(x.dtype)
        largest = self.neuron.largest
        return spikes if largest is None else mark(spikes, largest)


# What PyTorch makes a weight with before every call of its layer.
_MAKERS = (BasePruningMethod, SpectralNorm, WeightNorm)


def _weight(layer: nn.Linear) -> Tensor:
    """The weight as a call of the layer would see it."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, _MAKERS):
            hook(layer, ())
    return layer.weight


def _check(neuron: Neuron) -> None:
    own = type(neuron)
    known_synapse = isinstance(neuron, CUBALIF) or not neuron.filtered
    plain = neuron.is_plain_scan and known_synapse and not neuron.spec.two_sided
    if not (plain or isinstance(neuron, ALIF)):
        raise TypeError(
            "Recurrent takes a neuron of the scan that fires on one side (LIF, IF, PLIF, ...), "
            f"CUBALIF or ALIF; the step of {own.__name__} is another"
        )


def _cell(neuron: Neuron, x: Tensor) -> tuple[Cell, dict[str, float | Tensor]]:
    """The neuron as the recurrent scan takes it, and its coefficients."""
    if isinstance(neuron, ALIF):
        return _adaptive(neuron, x)
    coefficients = neuron.coefficients(x)
    # The feedback charges the synapse too, so the cell keeps its current.
    decay = coefficients.pop("current_decay") if neuron.filtered else 0.0
    assert isinstance(decay, float)
    return Cell(replace(neuron.spec, filtered=False), decay), coefficients


def _adaptive(neuron: ALIF, x: Tensor) -> tuple[Cell, dict[str, float | Tensor]]:
    soft = neuron.v_reset is None
    spec = ScanSpec.of(
        charge="leak",
        fire=neuron.fire,
        # A soft reset takes off the plain threshold, whatever the adaptation has made of it.
        reset="gated" if soft else "hard",
        surrogate=type(neuron.surrogate).__name__,
        detach_reset=neuron.detach_reset,
    )
    coefficients = neuron.coefficients(x)
    coefficients |= {"decay": exp(-1.0 / neuron.tau), "bias": 0.0}
    if soft:
        coefficients |= {"kept": 1.0, "amount": neuron.v_threshold}
    return Cell(spec, 0.0, neuron.beta, exp(-1.0 / neuron.tau_adaptation)), coefficients
