"""Neurons as differential equations, in millivolts and milliseconds.

Each model is its equations, as pairs (drive, rate) for `rheobase.neurons.integrators`, and what a
spike does to its states. One step of the input is one step ``dt`` of the integration. Spikes have
a surrogate gradient on the membrane, so the models train in networks like any other neuron.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheobase._errors import unknown_name
from rheobase._numbers import Positive
from rheobase.neurons.base import Tap
from rheobase.neurons.integrators import INTEGRATORS
from rheobase.neurons.stepwise import State, StepNeuron
from rheobase.ops.eager import is_seen_by_nobody
from rheobase.surrogate import Surrogate

__all__ = [
    "AdEx",
    "Biophysical",
    "HodgkinHuxley",
    "Izhikevich",
    "PhysicalEIF",
    "PhysicalLIF",
    "PhysicalQIF",
]

Slopes = tuple[tuple[Tensor | float, Tensor | float], ...]


class Biophysical(StepNeuron):
    """Base of neurons given by differential equations.

    A subclass names its ``variables`` (the membrane first), and implements `slopes` and
    `initial`; where a spike changes more than the membrane, `jump`.

    Args:
        v_threshold: membrane at which a spike is registered, mV.
        v_reset: membrane after it, mV; None: it is left alone.
        dt: time of one step, ms.
        method: "euler", "exponential_euler" or "rk4".
        refractory: for how long after a spike the membrane is held, ms.
        surrogate_width: the surrogate's z is ``(v - v_threshold) / surrogate_width``; mV.
        detach_reset: cut the gradient through the spike in whatever it changes.
        surrogate: the gradient of the spike; default `ATan(2.0)`.

    Raises:
        ValueError: ``dt`` or ``surrogate_width`` is not above 0, ``refractory`` negative, the
            method unknown, or ``v_reset`` not below ``v_threshold``; an eager call ends in states
            that are not finite: ``dt`` is too large for the method, or the input no number.
    """

    variables: ClassVar[tuple[str, ...]] = ("v",)
    fused = True

    def __init__(
        self,
        *,
        v_threshold: float,
        v_reset: float | None,
        dt: Positive = 0.1,
        method: str = "euler",
        refractory: float = 0.0,
        surrogate_width: Positive = 10.0,
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__(
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            strict=True,
            surrogate=surrogate,
        )
        if not (dt > 0.0 and surrogate_width > 0.0 and refractory >= 0.0):
            raise ValueError(
                "dt and surrogate_width must be above 0 and refractory not negative; got "
                f"dt={dt}, surrogate_width={surrogate_width}, refractory={refractory}"
            )
        if method not in INTEGRATORS:
            raise ValueError(unknown_name("integrator", method, INTEGRATORS))
        self.dt, self.method, self.refractory = dt, method, refractory
        self.surrogate_width = surrogate_width
        # While the neuron is held, a further state counts the steps that are left.
        self._held_steps = max(0, round(refractory / dt) - 1)
        self.states = len(self.variables) + (1 if self._held_steps else 0)

    @abstractmethod
    def slopes(self, state: State, current: Tensor) -> Slopes:
        """For each variable (drive, rate): its slope is ``drive + rate * variable``, per ms."""

    @abstractmethod
    def initial(self) -> tuple[float, ...]:
        """The variables before the first step."""

    def jump(self, state: State, s: Tensor) -> State:
        """The variables after spikes ``s``: by default, the membrane is reset."""
        if self.v_reset is None:
            return state
        return (self.reset_membrane(state[0], s, 0.0), *state[1:])

    def fired(self, v: Tensor, before: Tensor) -> Tensor:
        """Spikes of the membrane ``v``, which was ``before`` one step ago."""
        return self.spike((v - self.v_threshold) / self.surrogate_width)

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Every step in turn; what has once ceased to be finite stays so to the end."""
        spikes, membranes, last = super().run(x, carried, tap)
        captured = x.is_cuda and torch.cuda.is_current_stream_capturing()
        if last is not None and is_seen_by_nobody(x) and not (x.is_meta or captured):
            self._check_finite(last)
        return spikes, membranes, last

    def _check_finite(self, last: Tensor) -> None:
        if not last.isfinite().all():
            raise ValueError(
                f"{type(self).__name__}'s states are not finite after the last step: dt={self.dt} "
                f"ms is too large for method={self.method!r} (take a smaller dt or "
                "'exponential_euler'), or the input is not finite"
            )

    def start(self, x: Tensor) -> State:
        """The variables at rest, and nothing held."""
        values = (*self.initial(), *[0.0] * (self.states - len(self.variables)))
        return tuple(torch.full_like(x, value) for value in values)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Integrate over ``dt``, hold, fire, reset."""
        variables, held = state[: len(self.variables)], state[len(self.variables) :]
        before = variables[0]
        variables = INTEGRATORS[self.method](lambda now: self.slopes(now, x), variables, self.dt)
        v = torch.where(held[0] > 0.0, before, variables[0]) if held else variables[0]
        s = self.fired(v, before)
        if held:
            s = s * (held[0] <= 0.0)
            counted = (held[0] - 1.0).clamp_min(0.0)
            held = (torch.where(s > 0.0, float(self._held_steps), counted),)
        return s, v, (*self.jump((v, *variables[1:]), s), *held)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"dt={self.dt}, method={self.method!r}, refractory={self.refractory}"
        return f"{shown}, v_threshold={self.v_threshold}, v_reset={self.v_reset}"


class PhysicalLIF(Biophysical):
    r"""LIF in physical units: :math:`\tau\,\dot v = -(v - v_{rest}) + RI`.

    Input: :math:`RI`, mV. Exponential Euler is exact for input that is constant over a step.
    Source: Gerstner et al. 2014, *Neuronal Dynamics*, ch. 1

    Args:
        tau: membrane time constant, ms.
        v_rest: resting membrane, mV.
        options: the arguments of `Biophysical`.

    >>> PhysicalLIF(refractory=2.0)(torch.full((1000, 1), 20.0)).sum()
    tensor(6.)
    """

    def __init__(self, tau: Positive = 10.0, v_rest: float = -65.0, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "v_threshold": -50.0,
            "v_reset": -65.0,
            "method": "exponential_euler",
        }
        super().__init__(**(defaults | options))
        self.tau, self.v_rest = tau, v_rest

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """A leak towards rest plus input."""
        return (((self.v_rest + current) / self.tau, -1.0 / self.tau),)

    def initial(self) -> tuple[float, ...]:
        """At rest."""
        return (self.v_rest,)


class PhysicalQIF(Biophysical):
    r"""QIF in physical units: :math:`\tau\,\dot v = k(v - v_{rest})(v - v_c) + RI`.

    Input: :math:`RI`, mV. Source: Gerstner et al. 2014, *Neuronal Dynamics*, ch. 5

    Args:
        tau: time constant, ms.
        k: curvature, 1/mV.
        v_rest: resting membrane, mV.
        v_c: critical membrane, mV.
        options: the arguments of `Biophysical`.

    >>> PhysicalQIF()(torch.full((1000, 1), 20.0)).sum()
    tensor(6.)
    """

    def __init__(
        self,
        tau: Positive = 10.0,
        k: Positive = 0.07,
        v_rest: float = -65.0,
        v_c: float = -50.0,
        **options: Any,
    ) -> None:
        super().__init__(**({"v_threshold": -20.0, "v_reset": -65.0} | options))
        self.tau, self.k, self.v_rest, self.v_c = tau, k, v_rest, v_c

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """A parabola plus input."""
        (v,) = state
        return (((self.k * (v - self.v_rest) * (v - self.v_c) + current) / self.tau, 0.0),)

    def initial(self) -> tuple[float, ...]:
        """At rest."""
        return (self.v_rest,)


class PhysicalEIF(Biophysical):
    r"""EIF in physical units.

    :math:`\tau\,\dot v = -(v - v_{rest}) + \Delta_T\,e^{(v - v_T)/\Delta_T} + RI`. Input:
    :math:`RI`, mV. Source: Fourcaud-Trocmé et al. 2003.

    Args:
        tau: membrane time constant, ms.
        v_rest: resting membrane, mV.
        v_T: where the upswing begins, mV.
        delta_T: its sharpness, mV.
        options: the arguments of `Biophysical`.

    >>> PhysicalEIF()(torch.full((1000, 1), 20.0)).sum()
    tensor(5.)
    """

    def __init__(
        self,
        tau: Positive = 10.0,
        v_rest: float = -65.0,
        v_T: float = -50.0,
        delta_T: Positive = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**({"v_threshold": -30.0, "v_reset": -65.0} | options))
        self.tau, self.v_rest, self.v_T, self.delta_T = tau, v_rest, v_T, delta_T

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """A leak, an exponential upswing, and input."""
        (v,) = state
        upswing = _upswing(v, self.v_T, self.delta_T, self.v_threshold)
        return (((self.v_rest + upswing + current) / self.tau, -1.0 / self.tau),)

    def initial(self) -> tuple[float, ...]:
        """At rest."""
        return (self.v_rest,)


class Izhikevich(Biophysical):
    r"""Izhikevich's model: :math:`\dot v = 0.04v^2 + 5v + 140 - u + I,\ \dot u = a(bv - u)`.

    At :math:`v \ge 30` mV: :math:`v = c`, :math:`u = u + d`. Input: I, as in the paper without
    unit. ``PRESETS`` has the paper's kinds of cells. Euler steps of 0.5 ms, which many use, are not
    converged for RZ and TC. Source: Izhikevich 2003, IEEE TNN 14(6), eq. 1 to 3.

    Args:
        a: rate of the recovery u, 1/ms.
        b: how much u follows v.
        c: membrane after a spike, mV.
        d: how much a spike adds to u.
        options: the other arguments of `Biophysical`.

    >>> Izhikevich(**Izhikevich.PRESETS["RS"], dt=0.25)(torch.full((800, 1), 10.0)).sum()
    tensor(5.)
    """

    variables = ("v", "u")
    PRESETS: ClassVar[dict[str, dict[str, float]]] = {
        "RS": {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0},
        "IB": {"a": 0.02, "b": 0.2, "c": -55.0, "d": 4.0},
        "CH": {"a": 0.02, "b": 0.2, "c": -50.0, "d": 2.0},
        "FS": {"a": 0.1, "b": 0.2, "c": -65.0, "d": 2.0},
        "TC": {"a": 0.02, "b": 0.25, "c": -65.0, "d": 0.05},
        "RZ": {"a": 0.1, "b": 0.26, "c": -65.0, "d": 2.0},
        "LTS": {"a": 0.02, "b": 0.25, "c": -65.0, "d": 2.0},
    }

    def __init__(
        self, a: float = 0.02, b: float = 0.2, c: float = -65.0, d: float = 8.0, **options: Any
    ) -> None:
        super().__init__(v_reset=c, **({"v_threshold": 30.0} | options))
        self.strict = False
        self.a, self.b, self.d = a, b, d

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """A parabola less the recovery; the recovery follows."""
        v, u = state
        return (0.04 * v * v + 5.0 * v + 140.0 - u + current, 0.0), (self.a * self.b * v, -self.a)

    def initial(self) -> tuple[float, ...]:
        """-65 mV, and the recovery that belongs to it."""
        return -65.0, -65.0 * self.b

    def jump(self, state: State, s: Tensor) -> State:
        """Reset v, add to u."""
        v, u = super().jump(state, s)
        return v, u + self.d * (s.detach() if self.detach_reset else s)


class AdEx(Biophysical):
    r"""Adaptive exponential integrate-and-fire.

    .. math::
        C\dot v = -g_L(v - E_L) + g_L\Delta_T\,e^{(v - V_T)/\Delta_T} - w + I, \quad
        \tau_w\dot w = a(v - E_L) - w

    A spike at :math:`V_T + 5\Delta_T` resets v and adds b to w. Input: I, nA.
    Source: Brette and Gerstner 2005, J. Neurophysiology 94, eq. 1 to 3, and their parameters.

    Args:
        C: capacitance, pF.
        g_L: leak conductance, nS.
        E_L: leak reversal potential, mV.
        V_T: where the upswing begins, mV.
        delta_T: its sharpness, mV.
        tau_w: time constant of the adaptation, ms.
        a: how much it follows the membrane, nS.
        b: how much a spike adds to it, pA.
        options: the other arguments of `Biophysical`; ``v_reset`` is E_L by default.

    >>> AdEx(**AdEx.PRESETS["bursting"])(torch.full((2000, 1), 1.0)).sum()
    tensor(8.)
    """

    variables = ("v", "w")
    PRESETS: ClassVar[dict[str, dict[str, float]]] = {
        "regular": {"tau_w": 144.0, "a": 4.0, "b": 80.5, "v_reset": -70.6},
        "bursting": {"tau_w": 20.0, "a": 4.0, "b": 500.0, "v_reset": -47.4},
        "fast": {"tau_w": 144.0, "a": 2.0 * 281.0 / 144.0, "b": 0.0, "v_reset": -70.6},
    }

    def __init__(
        self,
        C: Positive = 281.0,
        g_L: Positive = 30.0,
        E_L: float = -70.6,
        V_T: float = -50.4,
        delta_T: Positive = 2.0,
        tau_w: Positive = 144.0,
        a: float = 4.0,
        b: float = 80.5,
        **options: Any,
    ) -> None:
        super().__init__(**({"v_threshold": V_T + 5.0 * delta_T, "v_reset": E_L} | options))
        self.C, self.g_L, self.E_L, self.V_T, self.delta_T = C, g_L, E_L, V_T, delta_T
        self.tau_w, self.a, self.b = tau_w, a, b

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """Leak, upswing, adaptation and input; the adaptation follows the membrane."""
        v, w = state
        upswing = _upswing(v, self.V_T, self.delta_T, self.v_threshold)
        drive = (self.g_L * (self.E_L + upswing) - w + 1000.0 * current) / self.C
        return (drive, -self.g_L / self.C), (
            self.a * (v - self.E_L) / self.tau_w,
            -1.0 / self.tau_w,
        )

    def initial(self) -> tuple[float, ...]:
        """At the leak potential, without adaptation."""
        return self.E_L, 0.0

    def jump(self, state: State, s: Tensor) -> State:
        """Reset v, add to w."""
        v, w = super().jump(state, s)
        return v, w + self.b * (s.detach() if self.detach_reset else s)


class HodgkinHuxley(Biophysical):
    r"""Hodgkin and Huxley's squid axon, resting at -65 mV.

    .. math::
        C\dot v = I - g_{Na}m^3h(v - E_{Na}) - g_K n^4(v - E_K) - g_L(v - E_L), \quad
        \dot y = \alpha_y(v)(1 - y) - \beta_y(v)\,y \ \text{ for } y \in \{m, h, n\}

    A spike is the membrane's rise above ``v_threshold`` (0 mV): there is no reset, and none other
    before it has fallen again. Input: I, uA/cm2. Explicit Euler needs ``dt`` of 0.01 ms or so;
    exponential Euler stands 0.05 ms, with spikes up to 0.6 ms late.
    Source: Hodgkin and Huxley 1952, J. Physiology 117, eq. 26 and table 3.

    Args:
        g_Na: sodium conductance, mS/cm2.
        g_K: potassium conductance, mS/cm2.
        g_L: leak conductance, mS/cm2.
        E_Na: sodium reversal potential, mV.
        E_K: potassium reversal potential, mV.
        E_L: leak reversal potential, mV.
        C: capacitance, uF/cm2.
        options: the other arguments of `Biophysical`.

    >>> HodgkinHuxley(dt=0.05)(torch.full((600, 1), 10.0)).sum()
    tensor(2.)
    """

    variables = ("v", "m", "h", "n")

    def __init__(
        self,
        g_Na: float = 120.0,
        g_K: float = 36.0,
        g_L: float = 0.3,
        E_Na: float = 50.0,
        E_K: float = -77.0,
        E_L: float = -54.387,
        C: Positive = 1.0,
        **options: Any,
    ) -> None:
        defaults: dict[str, Any] = {"v_threshold": 0.0, "dt": 0.01, "method": "exponential_euler"}
        super().__init__(v_reset=None, **(defaults | options))
        self.g_Na, self.g_K, self.g_L = g_Na, g_K, g_L
        self.E_Na, self.E_K, self.E_L, self.C = E_Na, E_K, E_L, C

    def slopes(self, state: State, current: Tensor) -> Slopes:
        """Three currents through the membrane, and the gates that open them."""
        v, m, h, n = state
        sodium, potassium = self.g_Na * m**3 * h, self.g_K * n**4
        drive = sodium * self.E_Na + potassium * self.E_K + self.g_L * self.E_L + current
        conductance = sodium + potassium + self.g_L
        gates = ((opening, -(opening + closing)) for opening, closing in _gate_rates(v))
        return (drive / self.C, -conductance / self.C), *gates

    def initial(self) -> tuple[float, ...]:
        """-65 mV, the gates where they settle there."""
        v = torch.tensor(-65.0, dtype=torch.float64)
        return (-65.0, *(float(opens / (opens + closes)) for opens, closes in _gate_rates(v)))

    def fired(self, v: Tensor, before: Tensor) -> Tensor:
        """Only where the membrane was not above the threshold already."""
        return super().fired(v, before) * (before <= self.v_threshold)


def _upswing(v: Tensor, begins: float, sharpness: float, ends: float | Tensor) -> Tensor:
    """The exponential of EIF and AdEx, mV.

    Above the threshold, where stages of Runge-Kutta may look, it stays what it is there: it would
    overflow, and the step ends in a spike anyway.
    """
    return sharpness * torch.exp((v.clamp_max(ends) - begins) / sharpness)


def _gate_rates(v: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """How fast m, h and n open and close, per ms."""
    m = _linoid((v + 40.0) / 10.0), 4.0 * torch.exp(-(v + 65.0) / 18.0)
    h = 0.07 * torch.exp(-(v + 65.0) / 20.0), torch.sigmoid((v + 35.0) / 10.0)
    n = 0.1 * _linoid((v + 55.0) / 10.0), 0.125 * torch.exp(-(v + 65.0) / 80.0)
    return m, h, n


def _linoid(x: Tensor) -> Tensor:
    """``x / (1 - exp(-x))``, which is 1 at 0."""
    near = x.abs() < 1e-6
    away = torch.where(near, 1.0, x)
    return torch.where(near, 1.0 + 0.5 * x, away / -torch.expm1(-away))
