"""The neurons of ``spikingjelly.clock_driven`` 0.0.0.0.12.

There a neuron took one step ``[N, ...]``, and its ``MultiStep`` twin a sequence ``[T, N, ...]``,
whose membranes it always kept as ``v_seq`` (set ``store_v_seq = False`` to spare the memory).
"""

from __future__ import annotations

from typing import Any

from rheobase.compat.spikingjelly import neuron as shared

__all__ = [
    "BaseNode",
    "EIFNode",
    "IFNode",
    "LIFNode",
    "MultiStepEIFNode",
    "MultiStepIFNode",
    "MultiStepLIFNode",
    "MultiStepParametricLIFNode",
    "ParametricLIFNode",
    "QIFNode",
]


class BaseNode(shared.BaseNode):
    """A neuron of one step: see `rheobase.compat.spikingjelly.neuron.BaseNode`.

    Here `reset` brings ``v_threshold`` and ``v_reset`` back too.

    Args:
        args: those of the neuron, by place.
        cupy_fp32_inference: accepted, without effect.
        kwargs: those of the neuron, by name.
    """

    remembers_settings = True

    def __init__(self, *args: Any, cupy_fp32_inference: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def settings(self) -> str:
        """What ``repr`` shows of every neuron."""
        shown = f"v_threshold={self.v_threshold}, v_reset={self.v_reset}"
        return f"{shown}, detach_reset={self.detach_reset}"


class _MultiStep(BaseNode):
    """A neuron of sequences; ``backend`` and ``lava_s_cale`` have no effect."""

    def __init__(
        self, *args: Any, backend: str = "torch", lava_s_cale: int = 64, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.step_mode = "m"
        self.store_v_seq = True
        self.backend = backend

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, backend={self.backend}"


class IFNode(BaseNode, shared.IFNode):
    """`rheobase.neurons.IF`, one step."""


class LIFNode(BaseNode, shared.LIFNode):
    """`rheobase.neurons.LIF`, one step."""


class ParametricLIFNode(BaseNode, shared.ParametricLIFNode):
    """`rheobase.neurons.PLIF`, one step."""


class QIFNode(BaseNode, shared.QIFNode):
    """`rheobase.neurons.QIF`, one step."""


class EIFNode(BaseNode, shared.EIFNode):
    """`rheobase.neurons.EIF`, one step."""


class MultiStepIFNode(_MultiStep, IFNode):
    """`rheobase.neurons.IF`, a sequence."""


class MultiStepLIFNode(_MultiStep, LIFNode):
    """`rheobase.neurons.LIF`, a sequence."""


class MultiStepParametricLIFNode(_MultiStep, ParametricLIFNode):
    """`rheobase.neurons.PLIF`, a sequence."""


class MultiStepEIFNode(_MultiStep, EIFNode):
    """`rheobase.neurons.EIF`, a sequence."""
