"""The fused GPU kernels: compiled once per kind of neuron by Triton.

The generated kernels import Triton, this module does so only to say what went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rheobase.ops.scan.kernel_source import Variant
from rheobase.ops.scan.layout import (
    Vector,
    compute_dtype,
    flat,
    like_rows,
    like_state,
    rows_like,
    vector,
)
from rheobase.ops.scan.spec import ScanSpec
from rheobase.ops.scan.triton_source import backward_source, forward_source
from rheobase.ops.translate import load_module

__all__ = ["DTYPES", "backward", "forward"]

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "float32",
    torch.float16: "float32",
}
"""The dtype of the arithmetic for each dtype of input."""

# The most steps that are unrolled: their membranes are in registers.
_UNROLLED = 32
_WARPS = 4

Value = float | Tensor


def forward(
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Spikes ``[T, ...]``; the last membrane if ``keep``; tapped membranes ``[T, ...]`` if ``tap``.

    ``x`` has dense rows (`dense_rows`); ``u`` is the first membrane (None: ``rest``); ``values``
    are in the order of ``spec.names``.

    Raises:
        ValueError: ``x`` is not on a GPU.
    """
    compute = compute_dtype(x)
    coefficients, kinds, _ = _coefficients(spec, values, x, wanted=())
    kernel = _forward_kernel(_variant(spec, x, kinds, tap))
    spikes = like_rows(x)
    last = like_state(x, spec.filtered) if keep else None
    membranes = like_rows(x, compute) if tap else None
    data, x_step = flat(x)
    _launch(kernel, x, x=data, x_step=x_step, spikes=spikes, first=_first(u, x, spec),
            start=float(rest), last=last, tap=membranes, **coefficients)  # fmt: skip
    return spikes, last, membranes


def backward(
    g: Tensor | None,
    g_tap: Tensor | None,
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[Value],
    tap: str,
    wanted: Sequence[int],
) -> list[Tensor]:
    """The gradient of ``x`` and of the coefficients whose indices are ``wanted``, in that order.

    ``g`` and ``g_tap`` are the gradients of spikes and tapped membranes, in any layout (None: 0).

    Raises:
        ValueError: ``x`` is not on a GPU.
    """
    compute = compute_dtype(x)
    coefficients, kinds, vectors = _coefficients(spec, values, x, wanted)
    variant = _variant(spec, x, kinds, tap)
    looped = variant.unroll == 1
    gx = like_rows(x)
    charged = like_rows(x, compute) if looped else None
    before = like_rows(x, compute) if looped and variant.needs_before else None
    currents = like_rows(x, compute) if looped and variant.needs_current else None
    sums = [_sums(vectors[i], x) for i in wanted]
    data, x_step = flat(x)
    g_data, g_step = flat(torch.zeros_like(x) if g is None else rows_like(g, x))
    if tap and g_tap is None:
        g_tap = torch.zeros_like(x, dtype=compute)
    g_tap_data, g_tap_step = flat(rows_like(g_tap, x)) if g_tap is not None and tap else (x, 0)
    outputs = {f"{spec.names[i]}_grad": s for i, s in zip(wanted, sums, strict=True)}
    _launch(_backward_kernel(variant), x, g=g_data, g_step=g_step, g_tap=g_tap_data,
            g_tap_step=g_tap_step, x=data, x_step=x_step, first=_first(u, x, spec),
            start=float(rest), gx=gx, charged=charged, before=before, currents=currents,
            **outputs, **coefficients)  # fmt: skip
    gradients = []
    for i, buffer in zip(wanted, sums, strict=True):
        value = values[i]
        assert isinstance(value, Tensor)
        gradients.append(_gradient(buffer, vectors[i], value))
    return [gx, *gradients]


def _variant(spec: ScanSpec, x: Tensor, kinds: str, tap: str) -> Variant:
    steps = x.shape[0]
    return Variant(spec, DTYPES[x.dtype], kinds, tap, steps if steps <= _UNROLLED else 1)


@cache
def _forward_kernel(variant: Variant) -> Any:
    return load_module("scan_triton_forward", forward_source(variant)).forward


@cache
def _backward_kernel(variant: Variant) -> Any:
    return load_module("scan_triton_backward", backward_source(variant)).backward


def _launch(kernel: Any, like: Tensor, **arguments: Any) -> None:
    """Run a kernel over the columns of ``like``, on its device."""
    _check_device(like)
    size = like[0].numel()
    with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
        block = _block(like)
        kernel[(_programs(like),)](
            **arguments,
            steps=like.shape[0],
            size=size,
            row=size,
            WIDE=size + block > 2**31 - 1,
            BLOCK=block,
            num_warps=_WARPS,
            # A multiply and an add fused into one rounding would move h, and so spikes.
            enable_fp_fusion=False,
        )


def _check_device(x: Tensor) -> None:
    if x.is_cuda:
        return
    from triton import knobs

    if not knobs.runtime.interpret:
        raise ValueError(
            f"the Triton backend runs on GPU tensors, got one on {x.device}; move it, or set "
            "TRITON_INTERPRET=1 before Python starts to interpret the kernels (slowly, for tests)"
        )


def _block(x: Tensor) -> int:
    """Columns of one program: four for each thread, fewer where each has many steps to hold."""
    return 512 if not 8 < x.shape[0] <= _UNROLLED else 256


def _programs(x: Tensor) -> int:
    return -(-x[0].numel() // _block(x))


def _coefficients(
    spec: ScanSpec, values: Sequence[Value], x: Tensor, wanted: Sequence[int]
) -> tuple[dict[str, Any], str, list[Vector | None]]:
    """The kernels' arguments for the coefficients, their kinds, and the vectors' layouts.

    A number in a tensor is passed as it lies ("p"): reading it here would wait for the GPU.
    """
    arguments: dict[str, Any] = {}
    kinds, vectors = "", list[Vector | None]()
    for i, (name, value) in enumerate(zip(spec.names, values, strict=True)):
        laid = None
        if not isinstance(value, Tensor):
            kind = "s"
            arguments[name] = float(value)
        elif value.numel() == 1:
            kind = "p"
            arguments[f"{name}_ptr"] = value.to(x.device)
        else:
            kind, laid = "v", vector(value, x, compute_dtype(x))
            arguments |= {
                f"{name}_ptr": laid.values,
                f"{name}_count": laid.count,
                f"{name}_inner": laid.inner,
                f"{name}_timed": laid.step != 0,
            }
        kinds += kind.upper() if i in wanted else kind
        vectors.append(laid)
    return arguments, kinds, vectors


def _first(u: Tensor | None, x: Tensor, spec: ScanSpec) -> Tensor | None:
    """The first membranes in the dense order of ``x``; of a filtered neuron its currents too."""
    if spec.filtered and u is not None:
        return like_state(x, filtered=True).copy_(u)
    return None if u is None else rows_like(u.expand(x.shape[1:]).unsqueeze(0), x[:1])


def _sums(laid: Vector | None, x: Tensor) -> Tensor:
    """Room for a coefficient's gradient: one sum a program, or a value for each column (a step).

    Every entry is written by one program alone, so the result does not depend on their order.
    """
    if laid is None:
        return x.new_empty(_programs(x), dtype=compute_dtype(x))
    steps = x.shape[0] if laid.step else 1
    return x.new_empty(steps, x[0].numel(), dtype=compute_dtype(x))


def _gradient(sums: Tensor, laid: Vector | None, like: Tensor) -> Tensor:
    """The gradient in the shape of the coefficient ``like``."""
    if laid is None:
        return sums.sum(dtype=torch.float64).reshape(like.shape).to(like.device, like.dtype)
    by_place = sums.view(len(sums), -1, laid.count, laid.inner)
    return laid.restore(by_place.sum((1, 3), dtype=torch.float64).flatten(), like)
