"""Modules that remember: what every stateful module of SpikingJelly is built on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn

__all__ = ["MemoryModule", "MultiStepModule", "SingleModule", "StepModule", "note_backend"]


class StepModule:
    """A module that takes one step ``[N, ...]`` ("s") or a sequence ``[T, N, ...]`` ("m")."""

    def supported_step_mode(self) -> tuple[str, ...]:
        """The step modes that it can be set to."""
        return ("s", "m")

    @property
    def step_mode(self) -> str:
        """ "s" or "m".

        Raises:
            ValueError: set to a mode that is not supported.
        """
        mode: str = self._step_mode
        return mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in self.supported_step_mode():
            raise ValueError(f"step_mode can only be {self.supported_step_mode()}, got {value!r}")
        self._step_mode = value


class SingleModule(StepModule):
    """A module that takes one step only."""

    def supported_step_mode(self) -> tuple[str, ...]:
        """The step modes that it can be set to."""
        return ("s",)


class MultiStepModule(StepModule):
    """A module that takes a sequence only."""

    def supported_step_mode(self) -> tuple[str, ...]:
        """The step modes that it can be set to."""
        return ("m",)


class MemoryModule(nn.Module, StepModule):
    """A module whose memories (plain attributes, in no state dict) last until `reset`.

    A subclass registers memories, and implements `single_step_forward` (version 0.0.0.0.14) or
    ``forward`` (0.0.0.0.12).
    """

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[str, Any] = {}
        self._memories_rv: dict[str, Any] = {}
        self._backend = "torch"
        self.step_mode = "s"

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """Every backend that code may name; which kernel runs depends on the device alone."""
        return ("torch", "cupy")

    @property
    def backend(self) -> str:
        """The name that was given; it has no effect."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        note_backend(value)
        self._backend = value

    def register_memory(self, name: str, value: Any) -> None:
        """Remember ``value`` as attribute ``name``; `reset` brings it back."""
        if hasattr(self, name):
            raise ValueError(f"{name} is an attribute of {type(self).__name__} already")
        self._memories[name] = value
        self.set_reset_value(name, value)

    def set_reset_value(self, name: str, value: Any) -> None:
        """What `reset` brings back."""
        self._memories_rv[name] = copy.deepcopy(value)

    def reset(self) -> None:
        """Forget: every memory as it was registered."""
        for name in self._memories:
            self._memories[name] = copy.deepcopy(self._memories_rv[name])

    def detach(self) -> None:
        """Cut the memories from the graph (truncated backpropagation through time)."""
        for name, value in self._memories.items():
            if isinstance(value, Tensor):
                self._memories[name] = value.detach()

    def memories(self) -> Iterator[Any]:
        """The memories."""
        yield from self._memories.values()

    def named_memories(self) -> Iterator[tuple[str, Any]]:
        """The memories by name."""
        yield from self._memories.items()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """One step or a sequence, as ``step_mode`` says."""
        if self.step_mode == "s":
            return self.single_step_forward(*args, **kwargs)
        return self.multi_step_forward(*args, **kwargs)

    def single_step_forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """One step."""
        raise NotImplementedError(f"{type(self).__name__} has no single_step_forward")

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A sequence, step by step."""
        from rheobase.compat.spikingjelly.functional import multi_step_forward

        return multi_step_forward(x_seq, lambda x: self.single_step_forward(x, *args, **kwargs))

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"step_mode={self.step_mode}, backend={self.backend}"

    def __getattr__(self, name: str) -> Any:
        memories = self.__dict__.get("_memories", {})
        return memories[name] if name in memories else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        memories = self.__dict__.get("_memories", {})
        if name in memories:
            memories[name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__.get("_memories", {}):
            del self._memories[name], self._memories_rv[name]
        else:
            super().__delattr__(name)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._memories = dict(self._memories)
        return replica

    def _apply(self, fn: Any, recurse: bool = True) -> MemoryModule:
        for name, value in self._memories.items():
            if isinstance(value, Tensor):
                self._memories[name] = fn(value)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


@cache
def note_backend(name: str) -> None:
    """Accept a backend, and say once that it has no effect.

    Raises:
        ValueError: no version had that backend.
    """
    if name not in ("torch", "cupy"):
        raise ValueError(f"backend {name!r} is not known here; give 'torch' or 'cupy'")
    if name != "torch":
        warnings.warn(
            f"backend={name!r} has no effect: rheobase chooses the kernel by the device",
            stacklevel=2,
        )
