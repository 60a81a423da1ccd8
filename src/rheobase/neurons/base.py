"""What every neuron shares: checks at the door, the scan, and its state."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from rheobase.neurons.hold import hold
from rheobase.neurons.settled import SettledSteps
from rheobase.ops.packed import mark
from rheobase.ops.scan import (
    InputNorm,
    LearntCoefficients,
    ScanSpec,
    scan,
    scan_to_bytes,
    takes_norm,
)
from rheobase.stateful import Stateful
from rheobase.surrogate import ATan, Surrogate

__all__ = ["Neuron", "Tap"]

Tap = Literal["h", "v"]


class Neuron(Stateful):
    """Base of all neurons: a subclass names its functions on the scan and their coefficients.

    A subclass sets ``charge`` (a name of `rheobase.ops.scan.tables.CHARGES`) and implements
    `charge_coefficients`; everything else (fire, reset, surrogate, kernels, streaming) is here. One
    whose step is no scan (several coupled states, a matrix over time) overrides `run` instead:
    see `rheobase.neurons.stepwise`.

    Args:
        v_threshold: the membrane at which it fires.
        v_reset: the membrane after a spike (hard reset); None subtracts ``v_threshold`` (soft).
        detach_reset: cut the gradient through the spike in the reset.
        strict: fire when the membrane is above the threshold, instead of at or above it.
        refractory: steps after a spike in which it takes no input, does not leak and cannot fire
            (`rheobase.neurons.refractory`); it then runs step by step, in PyTorch.
        surrogate: the gradient of the spike; default `ATan(2.0)`.

    Raises:
        ValueError: ``v_threshold`` or ``v_reset`` is not finite, or ``v_reset`` not below;
            ``refractory`` is negative, or given to a neuron whose step is another than the scan's.
        TypeError: ``surrogate`` is none.
    """

    charge: str = "integrate"
    filtered: bool = False
    """Whether a synapse's current, a second state, charges the membrane in the input's place."""
    largest: int | None = 1
    """The largest spike, where spikes are integers from 0 on; None: they may be negative."""
    scanned: bool = True
    """Whether `run` is the scan, which `spec` and `coefficients` tell all about."""
    to_bytes: bool = False
    """Give spikes as uint8, to layers that take them so, where no gradient is to flow: in networks
    made for inference."""
    states: int = 1
    """How many tensors like one step of the input make up the state."""
    decays: bool = True
    """Whether weight decay takes its parameters as any others."""
    _settled: SettledSteps | None = None

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        strict: bool = False,
        refractory: int = 0,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        if v_reset is not None and v_reset >= v_threshold:
            raise ValueError(
                f"v_reset={v_reset} is not below v_threshold={v_threshold}: the neuron would fire "
                "for ever; lower v_reset, or give v_reset=None for a soft reset"
            )
        if v_reset is None and self.scanned and v_threshold <= 0.0:
            raise ValueError(
                f"{type(self).__name__} subtracts v_threshold={v_threshold} at a spike, which must "
                "be above 0; or give a v_reset below it"
            )
        if surrogate is not None and not isinstance(surrogate, Surrogate):
            raise TypeError(
                f"{type(self).__name__} takes an object of rheobase.surrogate as surrogate, "
                f"such as ATan(2.0); got {surrogate!r}"
            )
        if refractory < 0:
            raise ValueError(f"refractory is a number of steps, 0 or more; got {refractory}")
        self.refractory: float = refractory
        if refractory and not self.has_scans_step:
            raise ValueError(
                f"{type(self).__name__} has a step of its own and takes no refractory={refractory}"
                "; IF, LIF, PLIF and others whose step is the scan's do"
            )
        if refractory:
            self.states += 1  # of how many steps are left
        self.v_threshold: float | Tensor = v_threshold
        self.v_reset = v_reset
        self.detach_reset = detach_reset
        self.strict = strict
        self.surrogate = surrogate if surrogate is not None else ATan()

    @property
    def has_scans_step(self) -> bool:
        """Whether `spec` and `coefficients` tell all of its step."""
        return self.scanned and type(self).run is Neuron.run

    @property
    def is_plain_scan(self) -> bool:
        """Whether the scan is all that it does."""
        return self.has_scans_step and not self.refractory

    @property
    def leak_factor(self) -> float | None:
        """What is left of the membrane a step later, where that is one number (else None).

        It is not where the charge is no straight line in the membrane, where a synapse filters the
        input, or where each channel has a factor of its own.
        """
        if not self.scanned or self.filtered or not self.spec.charge_functions.linear:
            return None
        try:
            given = self.charge_coefficients(torch.zeros(1, 1)).values()
        except ValueError:  # coefficients of channels, which this input has none of
            return None
        factor = self.spec.charge_functions.partials(0.0, 0.0, *given)[0]
        if isinstance(factor, Tensor):
            return factor.item() if factor.numel() == 1 else None
        return float(factor)

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The coefficients of ``charge``, by name; tensors broadcast to ``x``."""
        return {}

    def threshold(self, x: Tensor) -> float | Tensor:
        """The threshold; a tensor broadcasts to ``x``."""
        return self.v_threshold

    @property
    def rest(self) -> float:
        """The membrane of a neuron without input: where it starts and leaks to."""
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def fire(self) -> str:
        """A name of `rheobase.ops.scan.tables.FIRES`."""
        return "above" if self.strict else "at_or_above"

    @property
    def reset(self) -> str:
        """A name of `rheobase.ops.scan.tables.RESETS`."""
        return "soft" if self.v_reset is None else "hard"

    @property
    def spec(self) -> ScanSpec:
        """Which charge, fire, reset and surrogate this neuron is made of.

        Raises:
            TypeError: this neuron does not run on the scan.
        """
        if not self.scanned:
            raise TypeError(f"{type(self).__name__} does not run on the scan: it has no spec")
        return ScanSpec.of(
            charge=self.charge,
            fire=self.fire,
            reset=self.reset,
            surrogate=type(self.surrogate).__name__,
            detach_reset=self.detach_reset,
            filtered=self.filtered,
        )

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """A value for every name of ``self.spec.names``, in that order."""
        values = self.charge_coefficients(x)
        values["threshold"] = self.threshold(x)
        if self.v_reset is not None:
            values["v_reset"] = self.v_reset
        return values | self.surrogate_coefficients(x)

    def surrogate_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The surrogate's parameters under the names that they have among the coefficients."""
        parameters = self.surrogate.parameters_for(x)
        return {f"surrogate_{name}": value for name, value in parameters.items()}

    def learnt(self, x: Tensor) -> LearntCoefficients | None:
        """How `coefficients` but the surrogate's are made in the scan's own node of the graph.

        None: they are made before it.
        """
        return None

    def takes_norm(self, x: Tensor) -> bool:
        """Whether a batch norm of ``x`` can be done in the neuron's own pass (see `forward`)."""
        if not self.is_plain_scan:
            return False
        first = self.rest if self.carried is None else self.carried
        return takes_norm(x, first, self.surrogate_coefficients(x))

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
        _check_input(self, x)
        if self._settled is not None and tap is None and norm is None:
            spikes = self._settled(self, x)
            if spikes is not None:
                return spikes
        carried = self.carried
        if carried is not None and carried.shape != self.state_shape(x):
            raise ValueError(
                f"{type(self).__name__} streams on inputs [t, {_sizes(carried, self.states)}] but "
                f"was given {list(x.shape)}; call stream.reset() to start another sequence"
            )
        if norm is None:
            spikes, membrane, last = self.run(x, carried, tap)
        else:
            spikes, membrane, last = self._scan(x, carried, tap, norm)
        if last is not None:
            self.carry(last)
        if self.largest is not None:
            mark(spikes, self.largest)
        return spikes if membrane is None else (spikes, membrane)

    def settle(self) -> None:
        """Keep the coefficients that the first call finds, for single steps in inference.

        Such a call then costs little more than its kernel; `rheobase.optimize` asks for it. A
        neuron with a `run` of its own stays as it is.
        """
        if self.is_plain_scan:
            self._settled = SettledSteps()

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if self._settled is not None:  # the coefficients are others now
            self.settle()

    def state_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the state for an input ``[T, N, ...]``."""
        return tuple(x.shape[1:] if self.states == 1 else (self.states, *x.shape[1:]))

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Spikes, the tapped membrane and (when streaming) the last state of checked input."""
        if self.refractory:
            first = self.rest if carried is None else carried
            return hold(x, first, self.spec, self.coefficients(x), self.refractory, tap)
        return self._scan(x, carried, tap, None)

    def _scan(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None, norm: InputNorm | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        u = self.rest if carried is None else carried
        if self.to_bytes and tap is None and not self._learns(x, norm):
            spikes, last = scan_to_bytes(x, u, self.spec, self.coefficients(x), self._streams, norm)
            return spikes, None, last
        learnt = self.learnt(x)
        coefficients = self.coefficients(x) if learnt is None else self.surrogate_coefficients(x)
        spikes, last, membrane = scan(
            x, u, self.spec, coefficients, tap, self._streams, norm, learnt
        )
        return spikes, membrane, last

    def _learns(self, x: Tensor, norm: InputNorm | None) -> bool:
        """Whether gradients are to flow through the spikes, which bytes have none of."""
        if not torch.is_grad_enabled():
            return False
        normed = norm is not None and norm.gain.requires_grad
        return x.requires_grad or normed or any(p.requires_grad for p in self.parameters())

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = [f"v_threshold={self.v_threshold}", f"v_reset={self.v_reset}"]
        shown += [f"refractory={self.refractory}"] if self.refractory else []
        shown += [name for name in ("detach_reset", "strict") if getattr(self, name)]
        return ", ".join(shown)


def _sizes(state: Tensor, states: int) -> str:
    return ", ".join(str(n) for n in state.shape[0 if states == 1 else 1 :])


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
