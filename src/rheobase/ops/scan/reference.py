"""The neuron scan in plain PyTorch: the one to read, and the one every kernel must agree with.

Also what runs under `torch.func` transforms and forward-mode differentiation, where a fused
kernel cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rheobase.ops.scan.layout import stacked_like, steps_of
from rheobase.ops.scan.spec import ScanSpec
from rheobase.surrogate import Surrogate

__all__ = ["scan_reference", "with_surrogate"]

Coefficients = Mapping[str, float | Tensor]


def scan_reference(
    x: Tensor, first: Tensor | float, spec: ScanSpec, coefficients: Coefficients
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the neuron over time, step by step.

    Args:
        x: input current ``[T, ...]``; float16 and bfloat16 are computed in float32.
        first: the membrane before the first step, a number or ``[...]``; of a filtered neuron
            membrane and current, ``[2, ...]``.
        spec: which neuron.
        coefficients: a value for every name of ``spec.names``: a number, or a tensor that
            broadcasts to ``x`` (a leading axis of size T varies over time).

    Returns:
        spikes ``[T, ...]`` in the dtype of ``x``; charged membranes ``h`` and membranes after
        reset ``v``, both ``[T, ...]``; the last membrane ``[...]``, of a filtered neuron with its
        current as ``first`` is (all three in the dtype of computation).
    """
    compute = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    charge, reset = spec.charge_functions, spec.reset_functions
    current = torch.zeros_like(compute[0])
    if not isinstance(first, Tensor):
        u = torch.full_like(compute[0], first)
    elif spec.filtered:
        u, current = first.unbind(0)
    else:
        u = first
    spikes: list[Tensor] = []
    charged: list[Tensor] = []
    after: list[Tensor] = []
    for t, x_t in enumerate(steps_of(compute)):
        at = {name: _at_step(value, t, compute) for name, value in coefficients.items()}
        if spec.normed:
            x_t = x_t * at["input_gain"] + at["input_shift"]
        if spec.filtered:
            x_t = current = current * at["current_decay"] + x_t
        h = charge.value(u, x_t, *(at[n] for n in spec.charge_names))
        sides = [_fire(h, at["threshold"], spec, at)]
        if spec.two_sided:
            sides.append(_fire(-h, at["lower"], spec, at))
        s = sides[0] - sides[1] if spec.two_sided else sides[0]
        options = [at[n] for n in spec.reset_names]
        u = reset.value(h, *(side.detach() for side in sides), *options)
        if not spec.detach_reset:
            by_sides = reset.partials(h, *sides, *options)[1 : 1 + len(sides)]
            for side, by_side in zip(sides, by_sides, strict=True):
                u = u + _gradient_only(side, by_side)
        spikes.append(s)
        charged.append(h)
        after.append(u)
    last = stacked_like([u, current], x) if spec.filtered else u
    return (
        stacked_like(spikes, x).to(x.dtype), stacked_like(charged, x), stacked_like(after, x), last
    )  # fmt: skip


def _at_step(value: float | Tensor, t: int, x: Tensor) -> float | Tensor:
    """The coefficient of step t: tensors as deep as ``x`` have a time axis (of size T or 1)."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(x.dtype)
    if value.dim() < x.dim():
        return value
    return value.select(0, t if value.shape[0] > 1 else 0)


def _fire(h: Tensor, threshold: float | Tensor, spec: ScanSpec, at: Coefficients) -> Tensor:
    fire, surrogate = spec.fire_functions, spec.surrogate_functions
    z = fire.argument(h, threshold)
    options = [at[n] for n in spec.quantize_names]  # which have no gradient
    fixed = [o.detach() if isinstance(o, Tensor) else o for o in options]
    s: Tensor = fire.quantize(z.detach(), *fixed)
    return with_surrogate(s, z, surrogate, [at[n] for n in spec.surrogate_names])


def with_surrogate(
    s: Tensor, z: Tensor, surrogate: type[Surrogate], parameters: Sequence[float | Tensor]
) -> Tensor:
    """Spikes ``s`` (no gradient flows into them) with the surrogate's gradient by ``z``.

    Parameters that are learnt get theirs through the surrogate's primitive.

    Raises:
        ValueError: a parameter is learnt, and the surrogate has no closed primitive.
    """
    if any(isinstance(p, Tensor) and p.requires_grad for p in parameters):
        if surrogate.primitive is None:
            raise ValueError(
                f"surrogate {surrogate.__name__} has no closed primitive, so its parameters "
                "cannot be learnt; pass them as numbers"
            )
        smooth: Tensor = surrogate.primitive(z, *parameters)
        return s + (smooth - smooth.detach())
    slope: Tensor = surrogate.derivative(z.detach(), *parameters)
    return s + _gradient_only(z, slope)


def _gradient_only(of: Tensor, slope: Tensor | float) -> Tensor:
    """A tensor of zeros whose derivative by ``of`` is ``slope``: it changes gradients alone."""
    return (of - of.detach()) * (slope.detach() if isinstance(slope, Tensor) else slope)
