"""What every neuron shares: checks at the door, the scan, and its state."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from rheobase.ops.packed import mark
from rheobase.ops.scan import InputNorm, ScanSpec, scan, takes_norm
from rheobase.stateful import Stateful
from rheobase.surrogate import ATan, Surrogate

__all__ = ["Neuron"]

Tap = Literal["h", "v"]


class Neuron(Stateful):
    """Base of neurons on the scan: a subclass names its functions and its coefficients.

    A subclass sets ``charge`` (a name of `rheobase.ops.scan.spec.CHARGES`) and implements
    `charge_coefficients`; everything else (fire, reset, surrogate, kernels, streaming) is here.

    Args:
        v_threshold: the membrane at which it fires.
        v_reset: the membrane after a spike (hard reset); None subtracts ``v_threshold`` (soft).
        detach_reset: cut the gradient through the spike in the reset.
        strict: fire when the membrane is above the threshold, instead of at or above it.
        surrogate: the gradient of the spike; default `ATan(2.0)`.
    """

    charge: str = "integrate"

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        strict: bool = False,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        if v_reset is not None and v_reset >= v_threshold:
            raise ValueError(
                f"v_reset={v_reset} is not below v_threshold={v_threshold}: the neuron would fire "
                "for ever; lower v_reset, or give v_reset=None for a soft reset"
            )
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.detach_reset = detach_reset
        self.strict = strict
        self.surrogate = surrogate if surrogate is not None else ATan()

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The coefficients of ``charge``, by name; tensors broadcast to ``x``."""
        return {}

    @property
    def rest(self) -> float:
        """The membrane of a neuron without input: where it starts and leaks to."""
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def spec(self) -> ScanSpec:
        """Which charge, fire, reset and surrogate this neuron is made of."""
        return ScanSpec.of(
            charge=self.charge,
            fire="above" if self.strict else "at_or_above",
            reset="soft" if self.v_reset is None else "hard",
            surrogate=type(self.surrogate).__name__,
            detach_reset=self.detach_reset,
        )

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """A value for every name of ``self.spec.names``."""
        values = self.charge_coefficients(x)
        values["threshold"] = self.v_threshold
        if self.v_reset is not None:
            values["v_reset"] = self.v_reset
        for name, value in self.surrogate.parameters_by_name().items():
            values[f"surrogate_{name}"] = value
        return values

    def takes_norm(self, x: Tensor) -> bool:
        """Whether a batch norm of ``x`` can be done in the neuron's own pass (see `forward`)."""
        return takes_norm(x, self._first(), self.coefficients(x))

    @overload
    def forward(self, x: Tensor, tap: None = None, norm: InputNorm | None = None) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, tap: Tap, norm: InputNorm | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self, x: Tensor, tap: Tap | None = None, norm: InputNorm | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of the whole sequence.

        Args:
            x: input current ``[T, N, ...]``, floating point.
            tap: also return a membrane sequence ``[T, N, ...]``: "v" after reset, "h" charged,
                before firing (what membrane losses need).
            norm: a batch norm of ``x`` to do in the same pass, where `takes_norm`; layers use it
                through `rheobase.layers.over_time`.

        Returns:
            spikes, same shape and dtype as ``x``; with ``tap``, the pair (spikes, membrane).

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: ``x`` has no time and batch axis, is empty, or does not fit the state
                carried by `rheobase.streaming`.
        """
        self.check_input(x)
        spikes, last, membrane = scan(
            x, self._first(), self.spec, self.coefficients(x), tap, self._streams, norm
        )
        if last is not None:
            self.carry(last)
        mark(spikes, largest=1)
        return spikes if membrane is None else (spikes, membrane)

    def _first(self) -> Tensor | float:
        """The membrane before the first step."""
        return self.rest if self.carried is None else self.carried

    def check_input(self, x: Tensor) -> None:
        """Refuse what is no sequence, or does not fit the state carried by streaming.

        Raises:
            TypeError, ValueError: see `forward`.
        """
        _check_input(self, x)
        carried = self.carried
        if carried is not None and carried.shape != x.shape[1:]:
            raise ValueError(
                f"{type(self).__name__} streams on inputs [t, {_sizes(carried.shape)}] but was "
                f"given {list(x.shape)}; call stream.reset() to start another sequence"
            )

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = [f"v_threshold={self.v_threshold}", f"v_reset={self.v_reset}"]
        shown += [name for name in ("detach_reset", "strict") if getattr(self, name)]
        return ", ".join(shown)


def _sizes(shape: torch.Size) -> str:
    return ", ".join(str(n) for n in shape)


def _check_input(neuron: Neuron, x: Tensor) -> None:
    name = type(neuron).__name__
    if not x.is_floating_point():
        raise TypeError(f"{name} takes floating point input, got {x.dtype}; call x.float()")
    if x.dim() < 2:
        raise ValueError(
            f"{name} takes [T, N, ...] (time first), got shape {list(x.shape)}; a single step "
            "[N, ...] becomes x.unsqueeze(0)"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} got an empty input, shape {list(x.shape)}: no step or no sample")
