"""The neurons of ``spikingjelly.cext``, a package of early versions, as SEW-ResNet's code uses it.

A surrogate is named there: "ATan" or "Sigmoid", and its alpha given beside it.
"""

from __future__ import annotations

from typing import Any

from rheobase._errors import unknown_name
from rheobase.compat.spikingjelly import clock_driven_neuron, surrogate

__all__ = [
    "IFNode",
    "LIFNode",
    "MultiStepIFNode",
    "MultiStepLIFNode",
    "MultiStepParametricLIFNode",
]

_SURROGATES = {"ATan": surrogate.ATan, "Sigmoid": surrogate.Sigmoid}


class _Named(clock_driven_neuron.BaseNode):
    """Takes ``surrogate_function`` by name, and ``alpha``."""

    def __init__(
        self, *args: Any, surrogate_function: str = "ATan", alpha: float = 2.0, **kwargs: Any
    ) -> None:
        if surrogate_function not in _SURROGATES:
            raise ValueError(unknown_name("surrogate", surrogate_function, _SURROGATES))
        curve = _SURROGATES[surrogate_function](alpha)
        super().__init__(*args, surrogate_function=curve, **kwargs)


class IFNode(_Named, clock_driven_neuron.IFNode):
    """`rheobase.neurons.IF`, one step."""


class LIFNode(_Named, clock_driven_neuron.LIFNode):
    """`rheobase.neurons.LIF`, one step; ``tau`` is 100 unless given."""

    def __init__(self, tau: float = 100.0, **kwargs: Any) -> None:
        super().__init__(tau, **kwargs)


class MultiStepIFNode(_Named, clock_driven_neuron.MultiStepIFNode):
    """`rheobase.neurons.IF`, a sequence."""


class MultiStepLIFNode(_Named, clock_driven_neuron.MultiStepLIFNode):
    """`rheobase.neurons.LIF`, a sequence; ``tau`` is 100 unless given."""

    def __init__(self, tau: float = 100.0, **kwargs: Any) -> None:
        super().__init__(tau, **kwargs)


class MultiStepParametricLIFNode(_Named, clock_driven_neuron.MultiStepParametricLIFNode):
    """`rheobase.neurons.PLIF`, a sequence."""
