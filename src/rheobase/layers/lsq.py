"""Learnt-step-size quantisation: what ST-BIF neurons are exact conversions of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Size, numbers_checked

__all__ = ["Quantise", "quantiser"]


@numbers_checked
class Quantise(nn.Module):
    r"""Quantise to ``levels`` steps of a learnt size s.

    .. math:: y = s\,\mathrm{clip}(\lfloor x / s + 1/2 \rfloor, n, p)

    from 0 to levels - 1, or (symmetric) from -levels/2 to levels/2 - 1. The gradient passes
    straight through the rounding; that of s is scaled by :math:`1/\sqrt{p\,|x|_0}`.
    Sources: Esser et al. 2020 (LSQ), arXiv 1902.08153; You et al. 2024 (SpikeZIP-TF), whose neuron
    is `rheobase.neurons.STBIF`.

    Args:
        levels: how many values there are.
        symmetric: whether there are negative ones.
        scale: s to begin with; `calibrate` finds one from data.

    Raises:
        ValueError: ``levels`` is below 2 (for symmetric ones, below 4 or odd), or ``scale`` not
            above 0.

    >>> Quantise(4, scale=0.5)(torch.tensor([-1.0, 0.3, 9.0])).detach()
    tensor([0.0000, 0.5000, 1.5000])
    """

    conversion_kind = "quantise"

    def __init__(self, levels: Size, *, symmetric: bool = False, scale: Positive = 1.0) -> None:
        super().__init__()
        if levels < 2 or (symmetric and (levels < 4 or levels % 2)):
            raise ValueError(
                f"levels must be at least 2, and for a symmetric quantiser even and at least 4, "
                f"got {levels}"
            )
        self.levels = levels
        self.symmetric = symmetric
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    @property
    def threshold(self) -> Tensor:
        """Of the neuron that it converts to: s."""
        return self.scale

    @property
    def lowest(self) -> int:
        """The smallest integer n."""
        return -(self.levels // 2) if self.symmetric else 0

    @property
    def highest(self) -> int:
        """The largest integer p."""
        return self.levels // 2 - 1 if self.symmetric else self.levels - 1

    def forward(self, x: Tensor) -> Tensor:
        """``x`` quantised, same shape."""
        weight: float = (self.highest * x.numel()) ** -0.5
        scaled = self.scale * weight
        scale = scaled + (self.scale - scaled).detach()
        z = x / scale + 0.5
        z = z + (z.floor() - z).detach()
        return z.clamp(self.lowest, self.highest) * scale

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        r"""Set s to :math:`2\,\mathrm{mean}|x|/\sqrt{p}` of data, LSQ's initial value.

        Raises:
            ValueError: the data are all 0.
        """
        scale = 2.0 * x.abs().mean() / self.highest**0.5
        self.scale.copy_(scale)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.levels}, symmetric={self.symmetric}"


def quantiser(levels: Size | None, *, symmetric: bool = True) -> nn.Module:
    """A quantiser where a network has them (``levels``), else nothing.

    >>> quantiser(None)
    Identity()
    """
    return nn.Identity() if levels is None else Quantise(levels, symmetric=symmetric)
