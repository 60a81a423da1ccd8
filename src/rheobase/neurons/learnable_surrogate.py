"""A LIF whose surrogate gradient is as wide as its learnt decay spreads its membranes (LSG)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron
from rheobase.neurons.parameters import per_channel, positive
from rheobase.surrogate import Rectangular

__all__ = ["LSGLIF"]


class LSGLIF(Neuron):
    r"""LIF with a learnt decay, and a rectangular surrogate that follows it. A reconstruction.

    :math:`h_t = \lambda u_{t-1} + x_t` with :math:`\lambda = \sigma(w)` for the layer or each
    channel. Independent inputs of deviation d make membranes of deviation
    :math:`d / \sqrt{1 - \lambda^2}`, so the surrogate is a rectangle of mass 1 and width
    :math:`k = k_0 / \sqrt{1 - \lambda^2}`, through which no gradient reaches :math:`\lambda`.

    The paper's equations could not be had. Its abstract says that the width is modulated by the
    change of the membranes' distribution, which theory ties to the decay factors, and that
    trainable decay factors implement it. That much is here. Uncertain are the function of the decay
    (above: the stationary deviation; the code of its successor MPD-AGL takes that after one step,
    :math:`\sqrt{1 + \lambda^2}`, which differs in the fourth order), the surrogate's shape, and
    whether the decay learns through the width too.
    Source: Lian et al. 2023 (LSG), IJCAI, abstract; Jiang et al. 2025 (MPD-AGL), arXiv 2505.11863.

    Args:
        decay: initial :math:`\lambda`, in (0, 1).
        width: :math:`k_0`, the width without memory.
        channels: number of channels (axis 2 of ``[T, N, C, ...]``) for a decay each.
        options: those of `Neuron` but ``surrogate``.

    Raises:
        ValueError: an argument, or the decay as learnt, is out of its domain; the input has another
            number of channels.

    >>> neuron = LSGLIF(decay=0.6, width=1.0)
    >>> round(neuron.width.item(), 4)
    1.25
    """

    charge = "leak"

    def __init__(
        self,
        decay: float = 0.25,
        *,
        width: float = 1.0,
        channels: Size | None = None,
        **options: Any,
    ) -> None:
        if not 0.0 < decay < 1.0 or not width > 0.0:
            raise ValueError(f"decay in (0, 1) and width above 0, got {decay} and {width}")
        super().__init__(surrogate=Rectangular(1.0 / width), **options)
        w = math.log(decay / (1.0 - decay))
        self.w = nn.Parameter(torch.tensor(w) if channels is None else torch.full((channels,), w))
        self.narrowest = width

    @property
    def width(self) -> Tensor:
        """The surrogate's width as it stands."""
        return self._width(self.w.detach().sigmoid())

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The decay as a tensor that broadcasts to ``x``."""
        decay = self.w.sigmoid()
        for value, name in ((decay, "decay"), (1.0 - decay, "1 - decay")):
            positive(value, "LSGLIF", name)
        decay = per_channel(decay, x, "LSGLIF")
        return {"decay": decay, "bias": self.rest * (1.0 - decay) if self.rest else 0.0}

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With the surrogate's height, the inverse of its width."""
        values = super().coefficients(x)
        decay = values["decay"]
        assert isinstance(decay, Tensor)
        return values | {"surrogate_alpha": 1.0 / self._width(decay.detach())}

    def _width(self, decay: Tensor) -> Tensor:
        return self.narrowest * torch.rsqrt(1.0 - decay.square())
