"""A LIF whose surrogate gradient is as wide as its learnt decay spreads its membranes (LSG)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.parameters import per_channel, positive
from rheobase.surrogate import Rectangular

__all__ = ["LSGLIF"]


class LSGLIF(Neuron):
    r"""LIF with a learnt decay, and a rectangular surrogate whose width follows it.

    :math:`h_t = \beta u_{t-1} + x_t` with :math:`\beta = \sigma(w)` for the layer or each channel.
    Inputs of deviation :math:`V_{th}`, as tdBN gives them, make membranes of variance
    :math:`(1 + \beta^2) V_{th}^2`, so the surrogate is a rectangle of mass 1 and width
    :math:`\alpha = 2 V_{th} \sqrt{1 + \beta^2}`. The decay learns through the membrane alone.

    Source: Lian et al. 2023 (LSG), IJCAI, pages 3002 to 3010; its equations as a detailed report of
    the paper gives them (the paper's own text could not be had). The code of its successor has the
    same square root (Jiang et al. 2025, MPD-AGL, arXiv 2505.11863).

    Args:
        decay: initial :math:`\beta`, in (0, 1).
        width: the width without memory; None takes twice the threshold.
        channels: number of channels (axis 2 of ``[T, N, C, ...]``) for a decay each.
        v_threshold: as the paper has it.
        options: those of `Neuron` but ``surrogate``.

    Raises:
        ValueError: an argument, or the decay as learnt, is out of its domain; the input has another
            number of channels.

    >>> neuron = LSGLIF(decay=0.8)
    >>> round(neuron.width.item(), 4)
    1.2806
    """

    charge = "leak"

    def __init__(
        self,
        decay: float = 0.2,
        *,
        width: Positive | None = None,
        channels: Size | None = None,
        v_threshold: Positive = 0.5,
        **options: Any,
    ) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"LSGLIF learns its decay through a sigmoid: in (0, 1), got {decay}")
        width = 2.0 * v_threshold if width is None else width
        super().__init__(v_threshold=v_threshold, surrogate=Rectangular(1.0 / width), **options)
        w = math.log(decay / (1.0 - decay))
        self.w = nn.Parameter(torch.tensor(w) if channels is None else torch.full((channels,), w))
        self.narrowest = width

    @property
    def width(self) -> Tensor:
        """The surrogate's width as it stands."""
        return self._width(self.w.detach().sigmoid())

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The decay as a tensor that broadcasts to ``x``."""
        decay = per_channel(positive(self.w.sigmoid(), "LSGLIF", "decay"), x, "LSGLIF")
        return {"decay": decay, "bias": self.rest * (1.0 - decay) if self.rest else 0.0}

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With the surrogate's height, the inverse of its width."""
        values = super().coefficients(x)
        decay = values["decay"]
        assert isinstance(decay, Tensor)
        return values | {"surrogate_alpha": 1.0 / self._width(decay.detach())}

    def _width(self, decay: Tensor) -> Tensor:
        return self.narrowest * torch.sqrt(1.0 + decay.square())
