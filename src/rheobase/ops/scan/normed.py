"""Batch norm and neuron in one pass: the scan reads the norm's input and scales it on the way.

Neither the normalised sequence nor its gradient is ever stored. With the batch's own statistics the
gradient also flows through mean and variance: per channel,

    d loss / d x = gain * (g - mean(g) - x_hat * mean(g * x_hat)),

where g is the gradient at the neuron's input and x_hat the normalised input. The first term comes
out of the scan's backward pass, which also sums g and g * x; one more pass adds the rest in place.

Source: Ioffe & Szegedy 2015, arXiv 1502.03167.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rheobase.ops.batch_norm import add_affine_
from rheobase.ops.scan import cpu
from rheobase.ops.scan.layout import dense_rows
from rheobase.ops.scan.spec import ScanSpec

__all__ = ["InputNorm", "scan_batch_normed"]


@dataclass(frozen=True)
class InputNorm:
    """A batch norm in front of a neuron; everything is by channel, axis 2 of ``[T, N, C, ...]``.

    ``mean`` and ``variance`` (float64, biased) are the batch's own (``of_batch``: gradients flow
    through them) or running ones.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    of_batch: bool

    def coefficients(self, axes: int) -> dict[str, Tensor]:
        """Gain and shift that make the norm of ``x``, to broadcast to ``x`` of that many axes."""
        gain, shift = _gain_and_shift(self.weight, self.bias, self.mean, self._inverse())
        shape = (-1, *[1] * (axes - 3))
        return {"input_gain": gain.view(shape), "input_shift": shift.view(shape)}

    def _inverse(self) -> Tensor:
        return (self.variance + self.eps).rsqrt()


def scan_batch_normed(
    x: Tensor,
    u: Tensor | None,
    rest: float,
    spec: ScanSpec,
    values: Sequence[float | Tensor],
    tap: str,
    keep: bool,
    norm: InputNorm,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of batch-normalised ``x``, on the CPU, with the batch's own statistics.

    Args are those of a backend's ``forward``, for the neuron without the norm.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _BatchNormed.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm.mean, norm._inverse(), u, rest, spec, tap, keep, *values
    )
    return outputs


def _gain_and_shift(
    weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    # In float64, as the kernels sum the gradients: what cancels between them stays exact.
    gain = weight.double() * inverse
    return gain, bias.double() - mean * gain


class _BatchNormed(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, weight, bias, mean, inverse, u, rest, spec, tap, keep, *values
    ):
        x = dense_rows(x)
        gain, shift = _gain_and_shift(weight, bias, mean, inverse)
        tensors = [v for v in values if isinstance(v, Tensor)]
        ctx.save_for_backward(x, weight, mean, inverse, gain, shift, u, *tensors)
        ctx.numbers = [None if isinstance(v, Tensor) else v for v in values]
        ctx.constants = (rest, spec.with_norm, tap)
        ctx.bias_dtype = bias.dtype
        ctx.set_materialize_grads(False)
        channels = _by_channel(x, gain, shift)
        outputs = cpu.forward(x, u, rest, spec.with_norm, [*channels, *values], tap, keep)
        ctx.mark_non_differentiable(outputs[1])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, g, g_last, g_tap):  # type: ignore[no-untyped-def]
        x, weight, mean, inverse, gain, shift, u, *tensors = ctx.saved_tensors
        rest, spec, tap = ctx.constants
        left = iter(tensors)
        values = [next(left) if number is None else number for number in ctx.numbers]
        wanted = [i for i in range(len(values)) if ctx.needs_input_grad[10 + i]]
        gx, g_gain, g_shift, *gradients = cpu.backward(
            g, g_tap, x, u, rest, spec, [*_by_channel(x, gain, shift), *values], tap,
            [0, 1, *(2 + i for i in wanted)],
        )  # fmt: skip
        g_bias = g_shift.flatten()
        g_weight = (g_gain.flatten() - mean * g_bias) * inverse
        if ctx.needs_input_grad[0]:
            slope = -gain * inverse * g_weight * (x.shape[2] / x.numel())
            offset = -gain * g_bias * (x.shape[2] / x.numel()) - slope * mean
            add_affine_(gx, x, slope, offset)
        by_index = dict(zip(wanted, gradients, strict=True))
        for_values = (by_index.get(i) for i in range(len(values)))
        return (
            gx, g_weight.to(weight.dtype), g_bias.to(ctx.bias_dtype), *[None] * 7, *for_values
        )  # fmt: skip


def _by_channel(x: Tensor, *vectors: Tensor) -> list[Tensor]:
    return [v.view(-1, *[1] * (x.dim() - 3)) for v in vectors]
