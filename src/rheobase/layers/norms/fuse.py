"""A folded norm and the neuron behind it as one pass over memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rheobase.layers._checks import check_sequence, check_steps
from rheobase.layers.norms.base import Foldable
from rheobase.neurons import Neuron
from rheobase.ops.scan import ScanSpec

__all__ = ["FusedNormNeuron"]


class FusedNormNeuron(Neuron):
    r"""``neuron(norm(x))`` on the scan: the norm becomes the gain and the bias of the charge.

    A charge is linear, :math:`h = a u + b x + c`, so a folded norm :math:`x \mapsto \alpha x +
    \beta` before it gives :math:`h = a u + (b \alpha) x + (c + b \beta)`: no pass over memory of
    its own. For inference, where the norm cannot go into the weights before it (`BNTT`, `TAB`, the
    gains of `TEBN`). Spikes are the same up to rounding.

    Args:
        norm: a folded norm.
        neuron: a neuron on the scan. Both are kept, and shared with whoever holds them.

    Raises:
        ValueError: the norm is not folded, or the neuron computes more than a scan (`MPBN`); an
            input of another T or number of channels than the norm's.

    >>> import torch
    >>> from rheobase.layers import BNTT
    >>> from rheobase.neurons import LIF
    >>> norm, neuron, x = BNTT(3, steps=4).eval(), LIF(), torch.rand(4, 2, 3)
    >>> norm.fold()
    >>> torch.equal(FusedNormNeuron(norm, neuron)(x), neuron(norm(x)))
    True
    """

    def __init__(self, norm: Foldable, neuron: Neuron) -> None:
        if not norm.folded:
            raise ValueError(f"{type(norm).__name__} is not folded; call its fold() first")
        if not neuron.is_plain_scan:
            raise ValueError(f"{type(neuron).__name__} computes more than a scan; call it as it is")
        if neuron.filtered:
            raise ValueError(
                f"{type(neuron).__name__} has a synapse between norm and charge; call it as it is"
            )
        super().__init__(
            v_threshold=torch.as_tensor(neuron.v_threshold).min().item(),  # the lowest of several
            v_reset=neuron.v_reset,
            detach_reset=neuron.detach_reset,
            strict=neuron.strict,
            surrogate=neuron.surrogate,
        )
        self.norm, self.neuron = norm, neuron
        # Which step of the sequence a piece starts with, the membrane alone does not tell.
        self.causal = neuron.causal and self._steps is None

    @property
    def _steps(self) -> int | None:
        return getattr(self.norm, "steps", None)

    @property
    def spec(self) -> ScanSpec:
        """As the neuron's, with the general affine charge."""
        return replace(self.neuron.spec, charge="affine")

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """As the neuron's, with the norm in gain and bias."""
        check_sequence(self, x, self.norm.get_buffer("folded_scale").shape[-1])
        if self._steps is not None:
            check_steps(self.norm, x.shape[0], self._steps)
        values = self.neuron.coefficients(x)
        inner = self.neuron.spec
        given = [values.pop(name) for name in inner.charge_names]
        decay, gain = inner.charge_functions.partials(0.0, 0.0, *given)[:2]
        scale, shift = self._scale_and_shift(x)
        values["decay"] = decay
        values["gain"] = gain * scale
        values["bias"] = inner.charge_functions.value(0.0, 0.0, *given) + gain * shift
        return values

    def _scale_and_shift(self, x: Tensor) -> list[Tensor]:
        """Scale and shift ``[T or 1, 1, C, 1...]``, as they broadcast to ``x``."""
        found = []
        gain = getattr(self.norm, "folded_gain", None)
        for name in ("folded_scale", "folded_shift"):
            values = self.norm.get_buffer(name)
            values = values if values.dim() == 2 else values.unsqueeze(0)
            values = values if gain is None else gain.unsqueeze(1) * values
            found.append(values.view(len(values), 1, -1, *[1] * (x.dim() - 3)))
        return found
