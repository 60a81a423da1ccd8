"""One kind of spiking neuron, as data: a name from each of the scan's tables.

The functions that the names stand for are in `rheobase.ops.scan.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from rheobase.ops.scan.tables import CHARGES, FIRES, RESETS, Charge, Fire, Reset
from rheobase.surrogate import Surrogate, surrogate_class

__all__ = ["ScanSpec"]


@dataclass(frozen=True)
class ScanSpec:
    """One kind of neuron: names from the tables, a surrogate, and what the reset's gradient does.

    ``detach_reset`` cuts the gradient through the spike in the reset (and only that).
    ``normed``: the input is scaled and shifted first, by two more coefficients.
    ``filtered``: it charges a synaptic current first, a second state with a decay of its own.
    """

    charge: str
    fire: str
    reset: str
    surrogate: str
    detach_reset: bool = False
    normed: bool = False
    filtered: bool = False

    def __post_init__(self) -> None:
        if FIRES[self.fire].two_sided != RESETS[self.reset].two_sided:
            raise ValueError(
                f"fire {self.fire!r} and reset {self.reset!r} do not go together: both must be of "
                "one side, or both of two"
            )

    @property
    def key(self) -> str:
        """One string that tells all of it, for an operator's argument: see `from_key`."""
        path = "detached" if self.detach_reset else "attached"
        stages = "/normed" * self.normed + "/filtered" * self.filtered
        return f"{self.charge}/{self.fire}/{self.reset}/{path}/{self.surrogate}{stages}"

    @staticmethod
    @cache
    def of(
        charge: str,
        fire: str,
        reset: str,
        surrogate: str,
        detach_reset: bool,
        normed: bool = False,
        filtered: bool = False,
    ) -> ScanSpec:
        """The spec of these choices, made once: neurons ask for theirs at every call."""
        return ScanSpec(charge, fire, reset, surrogate, detach_reset, normed, filtered)

    @staticmethod
    @cache
    def from_key(key: str) -> ScanSpec:
        """The spec that a key stands for."""
        charge, fire, reset, path, surrogate, *stages = key.split("/")
        return ScanSpec(
            charge, fire, reset, surrogate, path == "detached",
            "normed" in stages, "filtered" in stages,
        )  # fmt: skip

    @cached_property
    def with_norm(self) -> ScanSpec:
        """The same neuron behind a norm."""
        return replace(self, normed=True)

    @property
    def charge_functions(self) -> Charge:
        """Charge and its partials."""
        return CHARGES[self.charge]

    @property
    def fire_functions(self) -> Fire:
        """Argument, its partials, and the quantiser."""
        return FIRES[self.fire]

    @property
    def reset_functions(self) -> Reset:
        """Reset and its partials."""
        return RESETS[self.reset]

    @property
    def kernels_reset(self) -> Reset:
        """Reset and its partials as the kernels take them: by a choice where spikes are 0 or 1."""
        reset, binary = self.reset_functions, self.fire_functions.binary
        return reset.choice if reset.choice is not None and binary else reset

    @property
    def surrogate_functions(self) -> type[Surrogate]:
        """The surrogate's class."""
        return surrogate_class(self.surrogate)

    # Plain properties: Dynamo cannot enter the lock that a cached one has in Python 3.11.

    @property
    def input_names(self) -> tuple[str, ...]:
        """The coefficients of the input's norm and synapse."""
        norm = ("input_gain", "input_shift") if self.normed else ()
        return (*norm, "current_decay") if self.filtered else norm

    @property
    def charge_names(self) -> tuple[str, ...]:
        """The coefficients of charge, in its order."""
        return self.charge_functions.names

    @property
    def quantize_names(self) -> tuple[str, ...]:
        """The coefficients of the quantiser, in its order."""
        return self.fire_functions.names

    @property
    def reset_names(self) -> tuple[str, ...]:
        """The coefficients of reset, in its order."""
        return self.reset_functions.names

    @property
    def surrogate_names(self) -> tuple[str, ...]:
        """The parameters of the surrogate, in its order."""
        return tuple([f"surrogate_{name}" for name in self.surrogate_functions.defaults])

    @property
    def two_sided(self) -> bool:
        """Whether it fires -1 too."""
        return self.fire_functions.two_sided

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every coefficient of the neuron, each once, in the order of the kernels' arguments."""
        ordered = (
            *self.input_names,
            *self.charge_names,
            "threshold",
            *(("lower",) if self.two_sided else ()),
            *self.quantize_names,
            *self.reset_names,
            *self.surrogate_names,
        )
        return tuple(dict.fromkeys(ordered))
