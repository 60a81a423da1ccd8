"""Conformance of the kernels with the reference, on the machine at hand.

What `rheobase selftest` runs, and what the tests of this repository run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal

import torch
from torch import Tensor

from rheobase.ops.scan import ScanSpec, available_backends, scan, use_backend
from rheobase.surrogate import surrogates

__all__ = ["NEURONS", "RUNAWAY", "TYPICAL", "Case", "Level", "Row", "cases", "check", "run"]

Level = Literal["fast", "pairs", "full"]

_BINARY = ("at_or_above", "above")
_BOTH_SIDES = ("both_at_or_beyond", "both_beyond")
_USUAL = ("hard", "soft")

# Charges that stand behind a synapse's current too (CUBA-LIF, IM-LIF).
_BEHIND_SYNAPSES = ("leak", "relax")

# The neurons on the scan: the charges, fires and resets that each of them may be made of.
NEURONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "IF": (("integrate",), _BINARY, _USUAL),
    "LIF and PLIF": (("relax", "blend", "leak"), _BINARY, _USUAL),
    "Diet-SNN": (("leak",), ("ratio_above",), ("soft",)),
    "KLIF": (("rectified",), _BINARY, (*_USUAL, "hard_scaled", "soft_scaled")),
    "GLIF": (("affine",), _BINARY, ("gated",)),
    "MPBN folded": (("affine",), _BINARY, _USUAL),
    "integer LIF": (("leak",), ("count",), ("soft",)),
    "GIF": (("integrate",), ("whole",), ("soft",)),
    "QIF": (("quadratic",), _BINARY, ("hard",)),
    "EIF": (("exponential",), _BINARY, ("hard",)),
    "DSR": (("integrate", "affine"), ("sized",), ("after_any",)),
    "converted": (("integrate_driven",), _BINARY, _USUAL),
    "converted, held": (("integrate", "integrate_driven"), _BINARY, ("soft_held",)),
    "ternary": (("integrate", "relax", "blend", "leak"), _BOTH_SIDES, ("hard_both", "soft_both")),
    "ternary, by magnitude": (("integrate",), _BOTH_SIDES, ("magnitude",)),
}

# Relative to the largest gradient. Sums of a coefficient's gradient run in another order.
_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}


_ROWS_A_PROCESS = 64


@dataclass(frozen=True)
class Row:
    """One kernel against the reference."""

    backend: str
    spec: str
    dtype: str
    layout: str
    spikes_differ: int
    worst_gradient: float
    ok: bool


@dataclass(frozen=True)
class Case:
    """One kernel to check: which neuron, dtype, shape of the coefficients, and tap."""

    spec: ScanSpec
    dtype: torch.dtype
    layout: str  # of `_LAYOUTS`: how the coefficients vary
    tap: str | None


def cases(level: Level, dtypes: tuple[torch.dtype, ...]) -> Iterator[Case]:
    """The kernels of a level.

    Args:
        level: "fast": a few that cover each function once. "pairs": every neuron with every
            surrogate, in turns of dtype, detachment, coefficients and tap. "full": every neuron,
            surrogate, dtype and detachment; hours of compiling, beginning with the pairs.
        dtypes: of the inputs; the fast level runs the first on most kernels.
    """
    if level == "fast":
        yield from _fast(dtypes)
        return
    each = (itertools.product(*choices) for choices in NEURONS.values())
    kinds = list(dict.fromkeys(itertools.chain.from_iterable(each)))  # some have one in common
    names = [row.name for row in surrogates()]
    turns = list(itertools.product(dtypes, (False, True)))
    # Turn by turn, so that what was stopped early has seen all pairs first.
    for turn in range(len(turns) if level == "full" else 1):
        for (k, kind), (n, name) in itertools.product(enumerate(kinds), enumerate(names)):
            at = 5 * k + n + turn  # every neuron, and every surrogate, meets all turns
            dtype, detach = turns[at % len(turns)]
            spec = ScanSpec(
                *kind, name, detach, normed=(k + n) % 2 == 1, filtered=kind[0] in _BEHIND_SYNAPSES
                and (k + n) % 4 >= 2,
            )  # fmt: skip
            tap = (None, "h", "v")[n % 3]
            yield Case(spec, dtype, _LAYOUTS[(k + n) % len(_LAYOUTS)], tap)


def _fast(dtypes: tuple[torch.dtype, ...]) -> Iterator[Case]:
    first, *others = dtypes
    yield Case(ScanSpec("blend", "at_or_above", "hard", "ATan", True), first, "number", None)
    yield Case(ScanSpec("affine", "ratio_above", "soft", "Sigmoid"), first, "channel", "h")
    yield Case(ScanSpec("leak", "above", "hard", "ATan"), first, "step", "v")
    yield Case(
        ScanSpec("blend", "at_or_above", "hard", "ATan", normed=True), first, "channel", None
    )
    yield Case(
        ScanSpec("integrate", "count", "soft", "StraightThrough", True), first, "number", "v"
    )
    yield Case(ScanSpec("rectified", "at_or_above", "soft_scaled", "ATan"), first, "column", "v")
    yield Case(ScanSpec("rectified", "above", "hard_scaled", "ATan", True), first, "number", "h")
    yield Case(ScanSpec("affine", "above", "gated", "Rectangular"), first, "mixed", None)
    yield Case(ScanSpec("leak", "above", "hard", "ATan", filtered=True), first, "step", "v")
    yield Case(ScanSpec("quadratic", "at_or_above", "hard", "ATan"), first, "channel", "v")
    yield Case(ScanSpec("exponential", "at_or_above", "hard", "Sigmoid"), first, "number", "v")
    yield Case(ScanSpec("integrate", "whole", "soft", "Window", True), first, "number", "v")
    yield Case(ScanSpec("relax", "both_at_or_beyond", "soft_both", "ATan"), first, "column", "v")
    yield Case(ScanSpec("integrate", "both_beyond", "hard_both", "Sigmoid"), first, "step", "h")
    yield Case(
        ScanSpec("integrate", "both_at_or_beyond", "magnitude", "Sigmoid"), first, "number", "v"
    )
    yield Case(ScanSpec("affine", "sized", "after_any", "Sigmoid"), first, "channel", "v")
    for dtype in others:
        yield Case(ScanSpec("relax", "at_or_above", "hard", "Sigmoid"), dtype, "channel", "v")


def run(level: Level = "fast", part: int = 0, parts: int = 1) -> Iterator[Row]:
    """Check every fast backend of this machine, row by row.

    A compiled kernel keeps some 15 MB for as long as its process lives, so of the long levels a few
    dozen rows at a time are checked in a process of their own.

    Args:
        level: see `cases`.
        part: which of ``parts`` shares of the rows, from 0 on.
        parts: how many shares there are.
    """
    for backend in available_backends():
        if backend == "reference":
            continue
        low = torch.float16 if backend == "triton" else torch.float64
        device = "cuda" if backend == "triton" else "cpu"
        rows = cases(level, (torch.float32, torch.bfloat16, low))
        share = itertools.islice(rows, part, None, parts)
        checked = partial(check, backend=backend, device=device)
        if level == "fast":
            yield from map(checked, share)
            continue
        with get_context("spawn").Pool(1, maxtasksperchild=_ROWS_A_PROCESS) as pool:
            yield from pool.imap(checked, share)


def check(case: Case, backend: str, device: str = "cpu") -> Row:
    """One kernel against the reference in the same dtype: spikes equal, gradients to rounding."""
    spikes, gradients = _differentiate(case, *_problem(case, device), backend)
    # The reference runs on the CPU: on a GPU, PyTorch divides by multiplying with the reciprocal.
    expected, expected_gradients = _differentiate(case, *_problem(case, "cpu"), "reference")
    differ = int((spikes.cpu() != expected).sum())
    worst = max(_relative(a, b) for a, b in zip(gradients, expected_gradients, strict=True))
    return Row(
        backend=backend,
        spec=case.spec.key,
        dtype=str(case.dtype).removeprefix("torch."),
        layout=case.layout,
        spikes_differ=differ,
        worst_gradient=worst,
        ok=differ == 0 and worst <= _TOLERANCE[case.dtype],
    )


def _relative(a: Tensor, b: Tensor) -> float:
    # Sums over many columns may cancel: below 1, the error is absolute.
    a = a.cpu()
    scale = b.abs().max().clamp_min(1.0)
    return float(((a - b).abs().max() / scale).double())


# Above threshold these charges feed on themselves: without a hard reset they leave the numbers.
RUNAWAY = ("quadratic", "exponential")

# Alike everywhere, in a channel's columns, at a step; each column its own; of both kinds.
_LAYOUTS = ("number", "channel", "step", "column", "mixed")

# Near the values of published neurons, away from powers of two.
TYPICAL = {
    "tau": 1.7, "rest": -0.1, "rate": 0.6, "decay": 0.7, "gain": 0.9, "bias": 0.05,
    "input_gain": 1.1, "input_shift": -0.2, "current_decay": 0.6,
    "threshold": 0.8, "levels": 4.0, "v_reset": -0.1, "k": 1.2, "curvature": 0.6,
    "critical": 0.5, "sharpness": 1.3, "rheobase": 0.7, "kept": 0.4, "amount": 0.3,
    "drive": 0.1, "lowest": -0.4, "lower": 0.6, "height": 1.9,
}  # fmt: skip


def _problem(case: Case, device: str) -> tuple[Tensor, dict[str, float | Tensor], list[Tensor]]:
    """Input, coefficients and the weights of the loss. Columns span several blocks."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (6, 2, 3, 700)
    x = (1.5 * draw(*shape)).to(case.dtype).to(device)
    weights = [draw(*shape).to(case.dtype).to(device), draw(*shape).to(device)]
    shapes = {"channel": (3, 1), "step": (6, 1, 1, 1), "column": (700,)}
    compute = torch.float64 if case.dtype == torch.float64 else torch.float32
    coefficients: dict[str, float | Tensor] = {}
    for turn, name in enumerate(case.spec.names):
        if name.startswith("surrogate_"):
            surrogate = case.spec.surrogate_functions
            coefficients[name] = surrogate.defaults[name.removeprefix("surrogate_")]
        elif name in ("levels", "height", "v_reset", "rest") or case.layout == "number":
            coefficients[name] = TYPICAL[name]
        else:
            layout = ("step", "channel")[turn % 2] if case.layout == "mixed" else case.layout
            value = TYPICAL[name] * (1.0 + 0.1 * draw(*shapes[layout]).clamp(-2, 2))
            coefficients[name] = value.to(compute).to(device)
    return x, coefficients, weights


def _differentiate(
    case: Case,
    x: Tensor,
    coefficients: dict[str, float | Tensor],
    weights: list[Tensor],
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    """Spikes, and the gradients of a weighted sum by the input and every tensor coefficient."""
    leaves = {
        n: v.detach().clone().requires_grad_() if isinstance(v, Tensor) else v
        for n, v in coefficients.items()
    }
    x = x.detach().clone().requires_grad_()
    with use_backend(backend):
        spikes, _, membranes = scan(x, -0.1, case.spec, leaves, case.tap)  # type: ignore[arg-type]
        loss = (spikes * weights[0]).sum()
        if membranes is not None:
            loss = loss + (membranes * weights[1].to(membranes.dtype)).sum()
        wanted = [x, *(v for v in leaves.values() if isinstance(v, Tensor))]
        gradients = torch.autograd.grad(loss, wanted)
    return spikes.detach(), list(gradients)
