"""Membrane potential batch norm: the membrane itself is normalised before it fires."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size
from rheobase.layers._checks import check_sequence
from rheobase.layers.norms.base import affine_of, flat
from rheobase.neurons import LIF
from rheobase.neurons.base import Tap
from rheobase.ops.scan import ScanSpec, scan
from rheobase.ops.scan.layout import compute_dtype

__all__ = ["MPBN"]


class MPBN(LIF):
    r"""LIF that fires on its normalised membrane: :math:`s_t = [\mathrm{BN}(h_t) \ge V_{th}]`.

    One batch norm is called at every step, so training updates its running statistics T times a
    call, and runs step by step. `fold` makes it a neuron on the scan, as fast as LIF.

    Two readings of what the next step starts from are in use. ``"raw"`` (the paper's code): the
    membrane as it was before the norm, where it did not fire. Inference then is a plain LIF whose
    threshold is, for every channel,
    :math:`\theta' = (V_{th} - \beta)\sqrt{\sigma^2 + \epsilon}/\gamma + \mu`; below a negative
    :math:`\gamma` the comparison turns round, which a change of sign of that channel's membrane
    brings about, exactly. ``"normalised"`` (SpikingJelly): the normalised membrane, other dynamics.

    The paper's code is ``MPBN(C, tau=4/3, decay_input=False, v_threshold=0.5, strict=True,
    surrogate=Dspike(3.0))``.

    Args:
        channels: number of channels of ``[T, N, C, ...]``.
        tau: time constant, at least 1.
        membrane: "raw" or "normalised", see above.
        learn_threshold: learn a threshold above 0 for each channel (as the exponential of a
            parameter), first ``v_threshold``.
        eps: added to the variance.
        momentum: of the running statistics, at each step.
        options: the arguments of `LIF`.

    Raises:
        ValueError: ``membrane="raw"`` without a hard reset to 0 (a soft reset would subtract a
            normalised threshold from a raw membrane); an input of other channels.

    Source: Guo et al. 2023, arXiv 2308.08359, eq. 9 to 14.

    >>> neuron = MPBN(3)
    >>> neuron(torch.randn(4, 8, 3, 5, 5)).shape
    torch.Size([4, 8, 3, 5, 5])
    >>> neuron.fold()
    >>> neuron(torch.randn(4, 8, 3, 5, 5)).shape
    torch.Size([4, 8, 3, 5, 5])
    """

    fold_scale: Tensor
    fold_shift: Tensor
    fold_threshold: Tensor

    def __init__(
        self,
        channels: Size,
        tau: float = 2.0,
        *,
        membrane: Literal["raw", "normalised"] = "raw",
        learn_threshold: bool = False,
        eps: Positive = 1e-5,
        momentum: Share = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(tau, **options)
        if membrane not in ("raw", "normalised"):
            raise ValueError(f"membrane is 'raw' or 'normalised', got {membrane!r}")
        if membrane == "raw" and self.v_reset != 0.0:
            raise ValueError(
                f"MPBN(membrane='raw') resets to 0, got v_reset={self.v_reset}; give v_reset=0.0 "
                "or membrane='normalised'"
            )
        self.membrane = membrane
        self.bn = nn.BatchNorm1d(channels, eps, momentum)
        self.channels = channels
        self.log_threshold: nn.Parameter | None = None
        if learn_threshold:
            self.log_threshold = nn.Parameter(
                torch.full((channels,), float(self.v_threshold)).log()
            )

    def threshold(self, x: Tensor) -> float | Tensor:
        """Of the normalised membrane; learnt, it is that of every channel."""
        if self.log_threshold is None:
            return self.v_threshold
        return _per_channel(self.log_threshold.exp(), x)

    @property
    def folded(self) -> bool:
        """Whether `fold` was called."""
        return "fold_threshold" in self._buffers

    @torch.no_grad()
    def fold(self) -> None:
        """Become a neuron with a threshold for each channel and no norm, for inference.

        Spikes stay those of evaluation mode, exactly but for the rounding of the thresholds.

        Raises:
            ValueError: it is folded already.
        """
        if self.folded:
            raise ValueError("this MPBN is folded already, and can be only once")
        scale, shift = (tensor.clone() for tensor in affine_of(self.bn))
        threshold = self._threshold(scale).expand_as(scale).clone()
        if self.membrane == "raw":
            always = shift > threshold if self.strict else shift >= threshold
            # Where gamma is 0; infinity would make gradients NaN.
            never = torch.full_like(scale, torch.finfo(scale.dtype).max)
            constant = torch.where(always, -never, never)
            sign = torch.where(scale < 0, -1.0, 1.0).to(scale)
            threshold = torch.where(scale == 0, constant, sign * (threshold - shift) / scale)
            scale, shift = sign, torch.zeros_like(shift)
        del self.bn
        self.log_threshold = None
        self.register_buffer("fold_scale", scale)
        self.register_buffer("fold_shift", shift)
        self.register_buffer("fold_threshold", threshold)

    @property
    def spec(self) -> ScanSpec:
        """As LIF; folded, the general affine charge."""
        spec = super().spec
        return replace(spec, charge="affine") if self.folded else spec

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """As LIF; folded, scale and threshold of every channel."""
        values = super().coefficients(x)
        if not self.folded:
            return values
        charge = super().spec.charge_functions
        given = self.charge_coefficients(x).values()
        decay, gain = charge.partials(0.0, 0.0, *given)[:2]
        scale = _per_channel(self.fold_scale, x)
        normalised = self.membrane == "normalised"
        values["decay"] = decay * scale if normalised else decay
        values["gain"] = gain * scale
        values["bias"] = charge.value(0.0, 0.0, *given) * scale + _per_channel(self.fold_shift, x)
        values["threshold"] = _per_channel(self.fold_threshold, x)
        return {name: values[name] for name in self.spec.names}

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Neuron.run`; of the tapped membrane, "h" is what is compared with the threshold.

        Raises:
            ValueError: ``x`` has another number of channels.
        """
        check_sequence(self, x, self.channels)
        return super().run(x, carried, tap) if self.folded else self._by_step(x, carried, tap)

    def _by_step(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        inputs = x.to(compute_dtype(x))
        u = torch.full_like(inputs[0], self.rest) if carried is None else carried
        charge, given = self.spec.charge_functions, self.charge_coefficients(x).values()
        spikes: list[Tensor] = []
        tapped: list[Tensor] = []
        for x_t in inputs.unbind(0):
            h = charge.value(u, x_t, *given)
            normal = self.bn(flat(h.unsqueeze(0))[0]).view_as(h)
            s, after = self._fire(normal)
            if self.membrane == "raw":
                after = h * (1.0 - (s.detach() if self.detach_reset else s))
            u = after
            spikes.append(s)
            tapped.append(normal if tap == "h" else u)
        membrane = None if tap is None else torch.stack(tapped)
        return torch.stack(spikes).to(x.dtype), membrane, u

    def _fire(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes of a normalised membrane, and that membrane after reset."""
        spec = replace(self.spec, charge="integrate")
        values = self.coefficients(normal.unsqueeze(0))
        values["threshold"] = _per_channel(self._threshold(normal), normal.unsqueeze(0))
        given = {name: values[name] for name in spec.names}
        spikes, _, after = scan(normal.unsqueeze(0), 0.0, spec, given, "v", keep=False)
        assert after is not None
        return spikes[0], after[0]

    def _threshold(self, like: Tensor) -> Tensor:
        if self.log_threshold is None:
            return torch.full((1,), float(self.v_threshold), dtype=like.dtype, device=like.device)
        return self.log_threshold.exp()

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"channels={self.channels}, membrane={self.membrane!r}, {super().extra_repr()}"
        return shown + ", folded" * self.folded


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """``[C]`` as it broadcasts to a step of ``[T, N, C, ...]``."""
    return values.view(1, -1, *[1] * (x.dim() - 3))
