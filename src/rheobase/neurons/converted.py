"""The integrate-and-fire neuron of converted networks: a threshold each, a first membrane each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rheobase._numbers import Limit
from rheobase.neurons.base import Neuron, Tap
from rheobase.ops.scan.layout import compute_dtype

__all__ = ["RateIF"]


class RateIF(Neuron):
    r"""IF whose mean output times the threshold is a quantised, clipped ReLU of its mean input.

    :math:`h_t = u_{t-1} + (x_t + d)`, :math:`n_t = [h_t \ge \theta]`,
    :math:`u_t = h_t - n_t \theta`, from :math:`u_0` = ``start``. With ``levels`` above 1,
    :math:`n_t = \mathrm{clip}(\lfloor h_t / \theta \rfloor, 0, \text{levels})` (burst spikes).
    Source: Rueckauer et al. 2017 (soft reset); Bu et al. 2022 (start), Deng & Gu 2021 (drive),
    Li & Zeng 2022 (burst).

    Args:
        v_threshold: :math:`\theta`, a scalar, or a tensor that broadcasts to one step's neurons
            (``[C, 1, 1]`` for each channel). A parameter: it can be trained further.
        start: the first membrane, likewise; default 0.
        drive: :math:`d`, a current added at every step, likewise; default none.
        hard: reset to 0 instead of subtracting the threshold.
        strict: fire above the threshold only.
        levels: largest number of spikes in a step; may be infinite.
        lowest: the membrane is held at or above it after reset.

    Raises:
        ValueError: a threshold is not above 0, ``levels`` is below 1, or a hard reset or ``strict``
            does not go with the rest.

    >>> neuron = RateIF(torch.tensor(1.0), start=torch.tensor(0.5))
    >>> neuron(torch.full((4, 1), 0.5)).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        v_threshold: Tensor,
        *,
        start: Tensor | None = None,
        drive: Tensor | None = None,
        hard: bool = False,
        strict: bool = False,
        levels: Limit = 1,
        lowest: Tensor | None = None,
    ) -> None:
        if not bool((v_threshold > 0.0).all()):
            raise ValueError(f"thresholds must be above 0, got {v_threshold.min().item()}")
        if levels < 1 or (levels > 1 and (hard or strict)):
            raise ValueError(
                f"levels must be at least 1, and 1 with a hard reset or strict, got {levels}"
            )
        if hard and lowest is not None:
            raise ValueError("a membrane is held at ``lowest`` with a soft reset only")
        super().__init__(v_threshold=1.0, v_reset=None, strict=strict)
        self.v_threshold: nn.Parameter = nn.Parameter(v_threshold.detach().clone())
        self.start = nn.Buffer(torch.zeros_like(v_threshold) if start is None else start.clone())
        self.drive = None if drive is None else nn.Buffer(drive.clone())
        self.charge = "integrate" if drive is None else "integrate_driven"
        self.hard = hard
        self.levels = levels
        self.lowest = None if lowest is None else nn.Buffer(lowest.clone())
        self.largest = int(levels) if math.isfinite(levels) else None

    def set_start(self, value: Tensor) -> None:
        """Another first membrane, which broadcasts to one step's neurons."""
        self.start = nn.Buffer(value.detach().clone())

    @property
    def fire(self) -> str:
        """One spike, or as many as fit."""
        return "whole" if self.levels > 1 else super().fire

    @property
    def reset(self) -> str:
        """Subtract the threshold, or set to 0."""
        if self.lowest is not None:
            return "soft_held"
        return "hard" if self.hard else "soft"

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The drive, if any."""
        return {} if self.drive is None else {"drive": self.drive}

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """A value for every name of ``self.spec.names``."""
        values = super().coefficients(x)
        extra: dict[str, float | Tensor] = {}
        if self.hard:
            extra["v_reset"] = 0.0
        if self.levels > 1:
            extra["levels"] = float(self.levels)
        if self.lowest is not None:
            extra["lowest"] = self.lowest
        known = values | extra
        return {name: known[name] for name in self.spec.names}

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The scan, from the first membrane."""
        if carried is None:
            carried = self.start.expand(x.shape[1:]).to(compute_dtype(x))
        return super().run(x, carried, tap)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shape = list(self.v_threshold.shape) or "layer"
        return f"thresholds: {shape}, levels={self.levels}, hard={self.hard}, strict={self.strict}"
