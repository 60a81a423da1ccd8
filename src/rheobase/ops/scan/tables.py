"""What one step of a spiking neuron is: charge, fire, reset, each a scalar function.

    h = charge(u, x, ...)            # the charged membrane
    z = argument(h, threshold)       # how far above threshold
    s = quantize(z, ...)             # the spike; its derivative is the surrogate's g(z)
    s = s - quantize(argument(-h, lower))  # of neurons that fire on both sides: ternary spikes
    u = reset(h, s, ...)             # the membrane kept for the next step

With ``normed``, x is first scaled and shifted: x <- input_gain * x + input_shift (a batch norm).
With ``filtered``, x then goes through a synapse, whose current charges the membrane in its place:
i <- current_decay * i + x.

The functions are written in the little language (`rheobase.ops.lang`); their further arguments
are the neuron's coefficients, found by name. Each comes with its partial derivatives, from which
the fused backward pass is made. A neuron is then data: one name from each table, and values for
the coefficients (`rheobase.neurons`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rheobase.ops.lang import abs, exp, floor, indicator, maximum, minimum, round, sign, where

__all__ = ["CHARGES", "FIRES", "RESETS", "Charge", "Fire", "Function", "Reset"]

Scalar = Any  # a float, a tensor, or a scalar of the compiled kernel
Function = Callable[..., Any]


def _further_arguments(function: Function, skip: int) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[skip:]


@dataclass(frozen=True)
class Charge:
    """``value(u, x, *coefficients) -> h``; ``partials`` of it by u, x and each coefficient.

    ``names``: of the coefficients, read off ``value``.
    ``linear`` in u and x: the backward pass then needs neither (but for coefficients' gradients).
    ``linear_in_x``: its partial by x is a constant.
    ``long``: it takes so long that kernels go about it otherwise (see `kernel_again`).
    """

    value: Function
    partials: Function
    linear: bool = True
    linear_in_x: bool = True
    long: bool = False
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _further_arguments(self.value, 2))


@dataclass(frozen=True)
class Fire:
    """``argument(h, threshold) -> z``, its ``partials`` by both, and ``quantize(z, ...) -> s``.

    ``two_sided``: what ``quantize`` gives for ``argument(-h, lower)`` is taken off. The two sides
    are events of their own, each with its surrogate.
    """

    argument: Function
    partials: Function
    quantize: Function
    two_sided: bool = False
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _further_arguments(self.quantize, 1))

    @property
    def binary(self) -> bool:
        """Whether spikes are 0 or 1 (of either side)."""
        return self.quantize in (_at_or_above, _above)


@dataclass(frozen=True)
class Reset:
    """``value(h, s, *coefficients) -> u``; ``partials`` of it by h, s and each coefficient.

    ``two_sided``: behind a fire of two sides, it takes the spikes of either one, ``up`` and
    ``down``, in the place of s.
    ``choice``: the same where spikes are 0 or 1, in fewer operations.
    """

    value: Function
    partials: Function
    choice: Reset | None = None
    two_sided: bool = False
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        spikes = 2 if self.two_sided else 1
        object.__setattr__(self, "names", _further_arguments(self.value, 1 + spikes))


def _relax(u: Scalar, x: Scalar, tau: Scalar, rest: Scalar) -> Scalar:
    return u + (x - (u - rest)) / tau


def _relax_partials(u: Scalar, x: Scalar, tau: Scalar, rest: Scalar) -> Scalar:
    return 1.0 - 1.0 / tau, 1.0 / tau, -(x - (u - rest)) / (tau * tau), 1.0 / tau


def _blend(u: Scalar, x: Scalar, rate: Scalar, rest: Scalar) -> Scalar:
    return u + (x - (u - rest)) * rate


def _blend_partials(u: Scalar, x: Scalar, rate: Scalar, rest: Scalar) -> Scalar:
    return 1.0 - rate, rate, x - (u - rest), rate


def _affine(u: Scalar, x: Scalar, decay: Scalar, gain: Scalar, bias: Scalar) -> Scalar:
    return decay * u + gain * x + bias


def _affine_partials(u: Scalar, x: Scalar, decay: Scalar, gain: Scalar, bias: Scalar) -> Scalar:
    return decay, gain, u, x, 1.0


def _leak_then_add(u: Scalar, x: Scalar, decay: Scalar, bias: Scalar) -> Scalar:
    return u * decay + bias + x


def _leak_then_add_partials(u: Scalar, x: Scalar, decay: Scalar, bias: Scalar) -> Scalar:
    return decay, 1.0, u, 1.0


def _integrate(u: Scalar, x: Scalar) -> Scalar:
    return u + x


def _integrate_partials(u: Scalar, x: Scalar) -> Scalar:
    return 1.0, 1.0


def _integrate_driven(u: Scalar, x: Scalar, drive: Scalar) -> Scalar:
    return u + (x + drive)


def _integrate_driven_partials(u: Scalar, x: Scalar, drive: Scalar) -> Scalar:
    return 1.0, 1.0, 1.0


def _rectified(
    u: Scalar, x: Scalar, k: Scalar, decay: Scalar, gain: Scalar, bias: Scalar
) -> Scalar:
    h = k * (decay * u + gain * x + bias)
    return where(h > 0.0, h, 0.0)


def _rectified_partials(
    u: Scalar, x: Scalar, k: Scalar, decay: Scalar, gain: Scalar, bias: Scalar
) -> Scalar:
    total = decay * u + gain * x + bias
    passed = indicator(k * total > 0.0, total)
    slope = passed * k
    return slope * decay, slope * gain, passed * total, slope * u, slope * x, slope


def _quadratic(
    u: Scalar, x: Scalar, tau: Scalar, curvature: Scalar, rest: Scalar, critical: Scalar
) -> Scalar:
    return u + (x + curvature * (u - rest) * (u - critical)) / tau


def _quadratic_partials(
    u: Scalar, x: Scalar, tau: Scalar, curvature: Scalar, rest: Scalar, critical: Scalar
) -> Scalar:
    rate = 1.0 / tau
    curve = (u - rest) * (u - critical)
    by_u = 1.0 + curvature * (2.0 * u - rest - critical) * rate
    by_tau = -(x + curvature * curve) * rate * rate
    by_rest = -curvature * (u - critical) * rate
    by_critical = -curvature * (u - rest) * rate
    return by_u, rate, by_tau, curve * rate, by_rest, by_critical


def _exponential(
    u: Scalar, x: Scalar, tau: Scalar, sharpness: Scalar, rheobase: Scalar, rest: Scalar
) -> Scalar:
    # By reciprocals, which are the same for all columns: a division takes as long as the rest.
    rate, steepness = 1.0 / tau, 1.0 / sharpness
    return u + (x + rest - u + sharpness * exp((u - rheobase) * steepness)) * rate


def _exponential_partials(
    u: Scalar, x: Scalar, tau: Scalar, sharpness: Scalar, rheobase: Scalar, rest: Scalar
) -> Scalar:
    rate, steepness = 1.0 / tau, 1.0 / sharpness
    over = (u - rheobase) * steepness
    upswing = exp(over)
    by_u = 1.0 + (upswing - 1.0) * rate
    by_tau = -(x + rest - u + sharpness * upswing) * rate * rate
    by_sharpness = upswing * (1.0 - over) * rate
    return by_u, rate, by_tau, by_sharpness, -upswing * rate, rate


CHARGES: dict[str, Charge] = {
    # u relaxes towards x with time constant tau: the field's LIF with decay_input=True.
    "relax": Charge(_relax, _relax_partials),
    # The same with a rate (1/tau) instead of tau: PLIF learns the rate.
    "blend": Charge(_blend, _blend_partials),
    # u decays, x is added whole: decay_input=False.
    "leak": Charge(_leak_then_add, _leak_then_add_partials),
    "integrate": Charge(_integrate, _integrate_partials),
    # With a constant current besides the input (converted networks).
    "integrate_driven": Charge(_integrate_driven, _integrate_driven_partials),
    # The general form h = a u + b_t x + c of which nearly every published neuron is a case.
    "affine": Charge(_affine, _affine_partials),
    # The affine form, scaled and rectified (KLIF).
    "rectified": Charge(_rectified, _rectified_partials, linear=False, linear_in_x=False),
    # Spike initiation by the membrane itself: a parabola (QIF), an exponential (EIF).
    "quadratic": Charge(_quadratic, _quadratic_partials, linear=False),
    "exponential": Charge(_exponential, _exponential_partials, linear=False, long=True),
}


def _difference(h: Scalar, threshold: Scalar) -> Scalar:
    return h - threshold


def _difference_partials(h: Scalar, threshold: Scalar) -> Scalar:
    return 1.0, -1.0


def _ratio(h: Scalar, threshold: Scalar) -> Scalar:
    return h / threshold - 1.0


def _ratio_partials(h: Scalar, threshold: Scalar) -> Scalar:
    return 1.0 / threshold, -h / (threshold * threshold)


def _multiple(h: Scalar, threshold: Scalar) -> Scalar:
    return h / threshold


def _multiple_partials(h: Scalar, threshold: Scalar) -> Scalar:
    return 1.0 / threshold, -h / (threshold * threshold)


def _at_or_above(z: Scalar) -> Scalar:
    return indicator(z >= 0.0, z)


def _above(z: Scalar) -> Scalar:
    return indicator(z > 0.0, z)


def _sized(z: Scalar, height: Scalar) -> Scalar:
    return indicator(z >= 0.0, z) * height


def _count(z: Scalar, levels: Scalar) -> Scalar:
    return round(minimum(maximum(z, 0.0), levels))


def _whole(z: Scalar, levels: Scalar) -> Scalar:
    return floor(minimum(maximum(z, 0.0), levels))


FIRES: dict[str, Fire] = {
    "at_or_above": Fire(_difference, _difference_partials, _at_or_above),
    "above": Fire(_difference, _difference_partials, _above),
    # Spikes of a height of their own, which has no gradient (DSR).
    "sized": Fire(_difference, _difference_partials, _sized),
    # z measured in thresholds: the surrogate's width then scales with the threshold (Diet-SNN).
    "ratio_above": Fire(_ratio, _ratio_partials, _above),
    # Several firing levels: the membrane in thresholds, rounded to 0..levels (I-LIF; half to even).
    "count": Fire(_multiple, _multiple_partials, _count),
    # The same rounded down: how often a binary neuron would fire before the next input (GIF).
    "whole": Fire(_multiple, _multiple_partials, _whole),
    # Ternary spikes: 1 at the threshold, -1 as far below 0 as ``lower``.
    "both_at_or_beyond": Fire(_difference, _difference_partials, _at_or_above, two_sided=True),
    "both_beyond": Fire(_difference, _difference_partials, _above, two_sided=True),
}


def _hard(h: Scalar, s: Scalar, v_reset: Scalar) -> Scalar:
    return h * (1.0 - s) + v_reset * s


def _hard_choice(h: Scalar, s: Scalar, v_reset: Scalar) -> Scalar:
    return where(s > 0.0, v_reset, h)


def _hard_partials(h: Scalar, s: Scalar, v_reset: Scalar) -> Scalar:
    return 1.0 - s, v_reset - h, s


def _soft(h: Scalar, s: Scalar, threshold: Scalar) -> Scalar:
    return h - s * threshold


def _soft_partials(h: Scalar, s: Scalar, threshold: Scalar) -> Scalar:
    return 1.0, -threshold, -s


def _hard_scaled(h: Scalar, s: Scalar, v_reset: Scalar, k: Scalar) -> Scalar:
    return h / k * (1.0 - s) + v_reset * s


def _hard_scaled_choice(h: Scalar, s: Scalar, v_reset: Scalar, k: Scalar) -> Scalar:
    return where(s > 0.0, v_reset, h / k)


def _hard_scaled_partials(h: Scalar, s: Scalar, v_reset: Scalar, k: Scalar) -> Scalar:
    return (1.0 - s) / k, v_reset - h / k, s, -h * (1.0 - s) / (k * k)


def _soft_scaled(h: Scalar, s: Scalar, threshold: Scalar, k: Scalar) -> Scalar:
    return (h - s * threshold) / k


def _soft_scaled_partials(h: Scalar, s: Scalar, threshold: Scalar, k: Scalar) -> Scalar:
    return 1.0 / k, -threshold / k, -s / k, -(h - s * threshold) / (k * k)


def _soft_held(h: Scalar, s: Scalar, threshold: Scalar, lowest: Scalar) -> Scalar:
    return maximum(h - s * threshold, lowest)


def _soft_held_partials(h: Scalar, s: Scalar, threshold: Scalar, lowest: Scalar) -> Scalar:
    free = indicator(h - s * threshold >= lowest, h)
    return free, -threshold * free, -s * free, 1.0 - free


def _gated(h: Scalar, s: Scalar, kept: Scalar, amount: Scalar) -> Scalar:
    return h * (1.0 - s) + h * kept * s - amount * s


def _gated_choice(h: Scalar, s: Scalar, kept: Scalar, amount: Scalar) -> Scalar:
    return where(s > 0.0, h * kept - amount, h)


def _gated_partials(h: Scalar, s: Scalar, kept: Scalar, amount: Scalar) -> Scalar:
    return 1.0 - s + kept * s, h * kept - h - amount, h * s, -s


def _gated_choice_partials(h: Scalar, s: Scalar, kept: Scalar, amount: Scalar) -> Scalar:
    by_h = where(s > 0.0, kept, 1.0)
    return by_h, h * kept - amount - h, where(s > 0.0, h, 0.0), -s


def _after_any(h: Scalar, s: Scalar, amount: Scalar) -> Scalar:
    return where(s > 0.0, h - amount, h)


def _after_any_partials(h: Scalar, s: Scalar, amount: Scalar) -> Scalar:
    return 1.0, 0.0, -indicator(s > 0.0, s)


def _hard_both(h: Scalar, up: Scalar, down: Scalar, v_reset: Scalar) -> Scalar:
    return h * (1.0 - (up + down)) + v_reset * (up + down)


def _hard_both_partials(h: Scalar, up: Scalar, down: Scalar, v_reset: Scalar) -> Scalar:
    return 1.0 - (up + down), v_reset - h, v_reset - h, up + down


def _magnitude(h: Scalar, up: Scalar, down: Scalar, v_reset: Scalar) -> Scalar:
    return h * (1.0 - abs(up - down)) + v_reset * abs(up - down)


def _magnitude_partials(h: Scalar, up: Scalar, down: Scalar, v_reset: Scalar) -> Scalar:
    by_up = (v_reset - h) * sign(up - down)
    return 1.0 - abs(up - down), by_up, -by_up, abs(up - down)


def _soft_both(h: Scalar, up: Scalar, down: Scalar, threshold: Scalar, lower: Scalar) -> Scalar:
    return h - up * threshold + down * lower


def _soft_both_partials(
    h: Scalar, up: Scalar, down: Scalar, threshold: Scalar, lower: Scalar
) -> Scalar:
    return 1.0, -threshold, lower, -up, down


RESETS: dict[str, Reset] = {
    "hard": Reset(_hard, _hard_partials, Reset(_hard_choice, _hard_partials)),
    "soft": Reset(_soft, _soft_partials),
    # The same after h is divided by k again (KLIF, scale_reset).
    "hard_scaled": Reset(
        _hard_scaled,
        _hard_scaled_partials,
        Reset(_hard_scaled_choice, _hard_scaled_partials),
    ),
    "soft_scaled": Reset(_soft_scaled, _soft_scaled_partials),
    # The membrane held at or above a lowest value (converted networks).
    "soft_held": Reset(_soft_held, _soft_held_partials),
    # Between hard and soft: a part of the membrane is kept, and an amount taken off (GLIF).
    "gated": Reset(_gated, _gated_partials, Reset(_gated_choice, _gated_choice_partials)),
    # By the same amount whatever a spike's size: its own gradient by the spike is 0 (DSR).
    "after_any": Reset(_after_any, _after_any_partials),
    # After a spike of either side; each side pulls the membrane to ``v_reset``.
    "hard_both": Reset(_hard_both, _hard_both_partials, two_sided=True),
    # The same by |s|, whose gradient is 0 where there was no spike (Spiking Wavelet Transformer).
    "magnitude": Reset(_magnitude, _magnitude_partials, two_sided=True),
    "soft_both": Reset(_soft_both, _soft_both_partials, two_sided=True),
}
