"""Neurons whose spikes have a sign."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase.neurons.base import Neuron, Tap
from rheobase.ops.scan import scan

__all__ = ["TernaryIF"]


class TernaryIF(Neuron):
    r"""Integrate-and-fire with spikes +1 and -1: the membrane may leave on either side.

    .. math:: h_t = u_{t-1} + x_t, \quad
       s_t = \Theta(h_t - v_{th}) - \Theta(-h_t - v_{neg}), \quad
       u_t = (1 - |s_t|)\, h_t

    Each sign has the surrogate's gradient at its own threshold. It runs step by step, on any
    device; a fused scan knows one threshold only.

    Source: Fang et al. 2024 (Spiking Wavelet Transformer), arXiv 2403.11138.

    Args:
        v_threshold: the membrane at which it fires +1.
        v_negative: it fires -1 at ``-v_negative`` and below; default ``v_threshold``.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`; the reset is to 0.

    Raises:
        ValueError: a threshold is not positive.

    >>> TernaryIF()(torch.tensor([[0.5], [0.5], [-0.7], [-0.7]])).squeeze()
    tensor([ 0.,  1.,  0., -1.])
    """

    def __init__(
        self, v_threshold: float = 1.0, *, v_negative: float | None = None, **options: Any
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=0.0, **options)
        self.v_negative = v_threshold if v_negative is None else v_negative
        if not self.v_negative > 0.0:
            raise ValueError(
                f"v_negative is the size of the lower threshold and must be positive, got "
                f"{v_negative}; it fires -1 at -v_negative"
            )

    def forward(self, x: Tensor, tap: Tap | None = None) -> Any:
        """Spikes -1, 0 and 1 of the whole sequence; arguments as those of `Neuron`."""
        self.check_input(x)
        current = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        carried = self.carried
        u = torch.zeros_like(current[0]) if carried is None else carried
        spikes, membranes = [], []
        for x_t in current.unbind(0):
            h = u + x_t
            s = self._fire(h, self.v_threshold) - self._fire(-h, self.v_negative)
            u = h * (1.0 - (s.detach() if self.detach_reset else s).abs())
            spikes.append(s)
            membranes.append(h if tap == "h" else u)
        self.carry(u)
        out = torch.stack(spikes).to(x.dtype)
        return out if tap is None else (out, torch.stack(membranes))

    def _fire(self, h: Tensor, threshold: float) -> Tensor:
        """1 where ``h`` has reached the threshold: one step of a neuron without memory."""
        coefficients = self.coefficients(h) | {"threshold": threshold}
        spikes, _, _ = scan(h.unsqueeze(0), 0.0, self.spec, coefficients, keep=False)
        return spikes.squeeze(0)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"v_negative={self.v_negative}, {super().extra_repr()}"
