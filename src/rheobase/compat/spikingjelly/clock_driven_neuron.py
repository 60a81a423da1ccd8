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

# Threshold, reset, surrogate function and its detaching come first by place, then what differs
# between versions: here ``cupy_fp32_inference`` or ``backend``.
_SHARED = 4


class BaseNode(shared.BaseNode):
    """A neuron of one step: see `rheobase.compat.spikingjelly.neuron.BaseNode`.

    Here `reset` brings ``v_threshold`` and ``v_reset`` back too.

    Args:
        args: the four that all neurons share, by place.
        cupy_fp32_inference: accepted, without effect.
        kwargs: those, by name.
    """

    remembers_settings = True

    def __init__(self, *args: Any, cupy_fp32_inference: bool = False, **kwargs: Any) -> None:
        super().__init__(*args[:_SHARED], **kwargs)

    def settings(self) -> str:
        """What ``repr`` shows of every neuron."""
        shown = f"v_threshold={self.v_threshold}, v_reset={self.v_reset}"
        return f"{shown}, detach_reset={self.detach_reset}"


class _MultiStep(BaseNode):
    """A neuron of sequences; ``backend`` and ``lava_s_cale`` have no effect."""

    def __init__(
        self, *args: Any, backend: str = "torch", lava_s_cale: int = 64, **kwargs: Any
    ) -> None:
        super().__init__(*args[:_SHARED], **kwargs)
        self.step_mode = "m"
        self.store_v_seq = True
        self.backend = args[_SHARED] if len(args) > _SHARED else backend


class _ShowsBackend(BaseNode):
    """Names the backend, after all else that is shown."""

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, backend={self.backend}"


class IFNode(shared.IFNode, BaseNode):
    """`rheobase.neurons.IF`, one step."""


class LIFNode(shared.LIFNode, BaseNode):
    """`rheobase.neurons.LIF`, one step."""


class ParametricLIFNode(shared.ParametricLIFNode, BaseNode):
    """`rheobase.neurons.PLIF`, one step."""


class QIFNode(shared.QIFNode, BaseNode):
    """`rheobase.neurons.QIF`, one step."""


class EIFNode(shared.EIFNode, BaseNode):
    """`rheobase.neurons.EIF`, one step."""


class MultiStepIFNode(_ShowsBackend, IFNode, _MultiStep):
    """`rheobase.neurons.IF`, a sequence."""


class MultiStepLIFNode(_ShowsBackend, LIFNode, _MultiStep):
    """`rheobase.neurons.LIF`, a sequence."""


class MultiStepParametricLIFNode(_ShowsBackend, ParametricLIFNode, _MultiStep):
    """`rheobase.neurons.PLIF`, a sequence."""


class MultiStepEIFNode(_ShowsBackend, EIFNode, _MultiStep):
    """`rheobase.neurons.EIF`, a sequence."""
