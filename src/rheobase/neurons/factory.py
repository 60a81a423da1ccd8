"""The neuron as one argument: a class, a factory, or a name, with keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn

from rheobase._errors import unknown_name
from rheobase.neurons.adaptive import ALIF, CLIF, AdaptiveQIF
from rheobase.neurons.biophysical import (
    AdEx,
    HodgkinHuxley,
    Izhikevich,
    PhysicalEIF,
    PhysicalLIF,
    PhysicalQIF,
)
from rheobase.neurons.burst import BurstIF
from rheobase.neurons.current import CUBALIF, IMLIF
from rheobase.neurons.dsr import DSRIF, DSRLIF
from rheobase.neurons.gated import GLIF
from rheobase.neurons.integer import GIF, ILIF
from rheobase.neurons.integrate_and_fire import IF, LIF, PLIF
from rheobase.neurons.learnable import KLIF, LTMD, DietLIF
from rheobase.neurons.learnable_surrogate import LSGLIF
from rheobase.neurons.multilevel import STBIF, MultiThreshold
from rheobase.neurons.nonlinear import EIF, QIF
from rheobase.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from rheobase.neurons.refractory import RefractoryLIF
from rheobase.neurons.resonate import RAF
from rheobase.neurons.signed import ImbalancedSignedIF, SignedIF, TernaryIF, TernaryLIF
from rheobase.neurons.stdb import STDBIF
from rheobase.neurons.tandem import TandemIF
from rheobase.surrogate import Surrogate, im_loss_schedule, linear_schedule, surrogate_class

__all__ = ["NEURONS", "neuron_factory"]

NEURONS: dict[str, Callable[..., nn.Module]] = {
    "if": IF,
    "lif": LIF,
    "plif": PLIF,
    "refractory_lif": RefractoryLIF,
    "diet_lif": DietLIF,
    "ltmd": LTMD,
    "lsg_lif": LSGLIF,
    "klif": KLIF,
    "glif": GLIF,
    "clif": CLIF,
    "alif": ALIF,
    "cuba_lif": CUBALIF,
    "im_lif": IMLIF,
    "ilif": ILIF,
    "gif": GIF,
    "ternary_if": TernaryIF,
    "ternary_lif": TernaryLIF,
    "signed_if": SignedIF,
    "imbalanced_signed_if": ImbalancedSignedIF,
    "multi_threshold": MultiThreshold,
    "st_bif": STBIF,
    "burst_if": BurstIF,
    "dsr_if": DSRIF,
    "dsr_lif": DSRLIF,
    "tandem_if": TandemIF,
    "stdb_if": STDBIF,
    "psn": PSN,
    "masked_psn": MaskedPSN,
    "sliding_psn": SlidingPSN,
    "qif": QIF,
    "eif": EIF,
    "adaptive_qif": AdaptiveQIF,
    "raf": RAF,
    "physical_lif": PhysicalLIF,
    "physical_qif": PhysicalQIF,
    "physical_eif": PhysicalEIF,
    "izhikevich": Izhikevich,
    "adex": AdEx,
    "hodgkin_huxley": HodgkinHuxley,
}

# Systems of the surveys (`rheobase catalog`) whose ids are not the names of what they are here.
_NEURON_OF_SYSTEM = {"generalized_if": "gif"}
_SURROGATE_OF_SYSTEM = {
    "triangular": "Triangular",
    "sigmoid": "Sigmoid",
    "rectangular": "Rectangular",
    "fast_sigmoid": "SuperSpike",
    "arctan": "ATan",
    "dspike": "Dspike",
    "im_loss_surrogate": "EvolvingTanh",
    "local_zo": "LocalZO",
}


def neuron_factory(
    neuron: str | Callable[..., nn.Module], **kwargs: Any
) -> Callable[..., nn.Module]:
    """What a model calls to make each of its neurons; later keywords override ``kwargs``.

    A ``surrogate`` may be data, as a YAML file holds it: a name, or a mapping of ``name`` and
    parameters, of which a pair goes from the first to the second as IM-Loss prescribes. So may a
    ``masking``: a pair goes from the first to the second at a constant rate. Neurons and surrogates
    are found by the ids of `rheobase catalog` too.

    Raises:
        ValueError: no neuron, option of it, or surrogate has that name; the nearest are offered.
        TypeError: an argument is missing that the neuron needs, such as T (when it is made).

    >>> neuron_factory("lif", tau=2.0)(v_threshold=0.5)
    LIF(
      tau=2.0, decay_input=True, v_threshold=0.5, v_reset=0.0
      (surrogate): ATan(alpha=2.0)
    )
    >>> neuron_factory("if", surrogate={"name": "Dspike", "b": 5.0})().surrogate
    Dspike(b=5.0)
    """
    if isinstance(neuron, str):
        neuron = _NEURON_OF_SYSTEM.get(neuron, neuron)
        if neuron not in NEURONS:
            raise ValueError(unknown_name("neuron", neuron, NEURONS))
        neuron = NEURONS[neuron]
    if isinstance(neuron, type):
        _check_options(neuron, kwargs)
    if "surrogate" in kwargs:
        kwargs["surrogate"] = _surrogate(kwargs["surrogate"])
    if isinstance(kwargs.get("masking"), list | tuple):
        kwargs["masking"] = linear_schedule(*kwargs["masking"])
    return (
        partial(_made, neuron, **kwargs) if isinstance(neuron, type) else partial(neuron, **kwargs)
    )


def _made(neuron: Callable[..., nn.Module], /, *args: Any, **options: Any) -> nn.Module:
    """A neuron, when a model wants one: only then is it known that an argument is missing."""
    try:
        inspect.signature(neuron).bind(*args, **options)
    except TypeError as error:
        raise TypeError(
            f"{neuron.__name__}: {error}; a model's neuron is given its arguments as "
            "neuron_kwargs={...} (of a run: model.overrides.neuron_kwargs)"
        ) from None
    return neuron(*args, **options)


def _check_options(neuron: type, options: Iterable[str]) -> None:
    known: set[str] = set()
    for cls in neuron.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(vars(cls)["__init__"]).parameters
            known |= parameters.keys()
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                break  # it hands nothing on to its bases
    for option in options:
        if option not in known:
            raise ValueError(
                unknown_name(f"option of {neuron.__name__}", option, known - {"self", "options"})
            )


def _surrogate(given: Any) -> Surrogate | None:
    """The surrogate that ``given`` is or tells of."""
    if given is None or isinstance(given, Surrogate):
        return given
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    if "name" not in parameters:
        raise ValueError(f"a surrogate given as {parameters} lacks its name, as in {{name: ATan}}")
    name = parameters.pop("name")
    cls = surrogate_class(_SURROGATE_OF_SYSTEM.get(name, name))
    for key, value in parameters.items():
        if key not in cls.defaults:
            raise ValueError(unknown_name(f"parameter of {cls.__name__}", key, cls.defaults))
        if isinstance(value, list | tuple):
            parameters[key] = im_loss_schedule(*value)
    return cls(**parameters)
