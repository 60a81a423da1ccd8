"""Activations to train an ANN with that will be converted: they bound and quantise as spikes do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Share, Size, numbers_checked

__all__ = ["QCFS", "ClampQuant", "QuantReLU", "RateNorm", "ThresholdReLU"]


def _floor(x: Tensor) -> Tensor:
    """Rounded down, with the gradient of the identity."""
    return x + (x.floor() - x).detach()


@numbers_checked
class ThresholdReLU(nn.Module):
    r"""ReLU clipped at a threshold, :math:`\mathrm{clip}(z, 0, \theta)`.

    Source: Deng & Gu 2021 (a fixed threshold); Ho & Chang 2021 (TCL), Bu et al. 2022a (a trained
    one).

    Args:
        threshold: :math:`\theta`, the initial one if trained.
        trained: learn it.

    Raises:
        ValueError: ``threshold`` is not above 0.

    >>> ThresholdReLU(1.0)(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    conversion_kind = "threshold_relu"

    def __init__(self, threshold: Positive = 1.0, *, trained: bool = False) -> None:
        super().__init__()
        value = torch.tensor(threshold)
        self.threshold: Tensor = nn.Parameter(value) if trained else nn.Buffer(value)

    def forward(self, z: Tensor) -> Tensor:
        """Any shape."""
        return torch.minimum(z.relu(), self.threshold)


@numbers_checked
class QCFS(nn.Module):
    r"""Quantisation-clip-floor-shift: :math:`\lambda\,\mathrm{clip}(\lfloor zL/\lambda +
    1/2\rfloor / L, 0, 1)`.

    Source: Bu et al. 2022, ICLR. The gradient passes the floor. As in the authors' first repository
    the clip comes after the floor; ``clip_first`` does it before (their later one): equal values,
    but no gradient outside :math:`[0, \lambda]`.

    Args:
        levels: L.
        threshold: initial :math:`\lambda`, trained.
        clip_first: see above.

    Raises:
        ValueError: ``levels`` is below 1, or ``threshold`` not above 0.

    >>> QCFS(levels=2, threshold=1.0)(torch.tensor([-1.0, 0.3, 0.6, 3.0])).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """

    conversion_kind = "qcfs"

    def __init__(
        self, levels: Size = 8, threshold: Positive = 8.0, *, clip_first: bool = False
    ) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.clip_first = clip_first

    def forward(self, z: Tensor) -> Tensor:
        """Any shape."""
        y = z / self.threshold
        if self.clip_first:
            y = y.clamp(0.0, 1.0)
        y = _floor(y * self.levels + 0.5) / self.levels
        return y.clamp(0.0, 1.0) * self.threshold

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"levels={self.levels}, clip_first={self.clip_first}"


class _UniformQuantisation(torch.autograd.Function):
    """Clip to [0, alpha] and round to 2^b - 1 steps, with the gradients of PACT."""

    @staticmethod
    def forward(ctx, z, alpha, steps):  # type: ignore[no-untyped-def]
        y = z / alpha
        q = (y.clamp(0.0, 1.0) * steps).round() / steps
        ctx.save_for_backward(y, q)
        return q * alpha

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        y, q = ctx.saved_tensors
        above = (y > 1.0).to(g.dtype)
        return g * (1.0 - above), (g * (above + (q - y) * (1.0 - above))).sum(), None


@numbers_checked
class QuantReLU(nn.Module):
    r"""ReLU rounded to b bits below a trained bound, as Fast-SNN trains it.

    :math:`\alpha\,\mathrm{round}(\mathrm{clip}(z/\alpha, 0, 1)(2^b-1))/(2^b-1)`; the SNN then takes
    :math:`T = 2^b - 1` steps. Source: Hu et al. 2023 (Fast-SNN), IEEE TPAMI 45(12).

    Args:
        bits: b.
        threshold: initial :math:`\alpha`, trained.

    Raises:
        ValueError: ``bits`` is below 1, or ``threshold`` not above 0.

    >>> QuantReLU(bits=1, threshold=1.0)(torch.tensor([-1.0, 0.4, 0.6, 3.0])).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    conversion_kind = "quant_relu"

    def __init__(self, bits: Size = 4, threshold: Positive = 8.0) -> None:
        super().__init__()
        self.bits = bits
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    @property
    def steps(self) -> int:
        """Time steps that the SNN takes."""
        return int(2**self.bits - 1)

    def forward(self, z: Tensor) -> Tensor:
        """Any shape."""
        y: Tensor = _UniformQuantisation.apply(z.relu(), self.threshold, self.steps)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"bits={self.bits}"


@numbers_checked
class ClampQuant(nn.Module):
    r"""ReLU clipped at a threshold and rounded down to levels, as a neuron from 0 counts.

    :math:`\theta\lfloor\mathrm{clip}(z/\theta, 0, 1)\,L\rfloor / L`; the gradient passes the
    rounding. Training begins with `ThresholdReLU`, whose place this takes for the second phase; the
    SNN takes T = L steps. Source: Yan et al. 2021 (clamp and quantisation), AAAI 35.

    Args:
        levels: L.
        threshold: :math:`\theta`.

    Raises:
        ValueError: ``levels`` is below 1, or ``threshold`` not above 0.

    >>> ClampQuant(2)(torch.tensor([-1.0, 0.4, 0.6, 3.0])).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """

    conversion_kind = "clamp_quant"

    def __init__(self, levels: Size, threshold: Positive = 1.0) -> None:
        super().__init__()
        self.levels = levels
        self.threshold = nn.Buffer(torch.tensor(float(threshold)))

    def forward(self, z: Tensor) -> Tensor:
        """Any shape."""
        y = (z / self.threshold).clamp(0.0, 1.0)
        return _floor(y * self.levels) / self.levels * self.threshold

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"levels={self.levels}"


@numbers_checked
class RateNorm(nn.Module):
    r"""Rate norm layer: a rate in [0, 1], whose scale is a trained share of the largest activation.

    :math:`\mathrm{clip}(\mathrm{ReLU}(z)/\theta, 0, 1)` with :math:`\theta` = running maximum times
    ``sigmoid(share)`` (or its absolute value). Source: Ding et al. 2021 (RNL), IJCAI.

    Args:
        momentum: of the running maximum.
        absolute: take ``|share|`` instead of its sigmoid.

    >>> layer = RateNorm().eval()
    >>> layer(torch.tensor([-1.0, 0.25, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    conversion_kind = "rate_norm"

    def __init__(self, momentum: Share = 0.1, *, absolute: bool = False) -> None:
        super().__init__()
        self.momentum = momentum
        self.absolute = absolute
        self.share = nn.Parameter(torch.tensor(1.0 if absolute else 0.0))
        self.running_maximum = nn.Buffer(torch.tensor(1.0))

    @property
    def threshold(self) -> Tensor:
        """The scale."""
        share = self.share.abs() if self.absolute else self.share.sigmoid()
        return self.running_maximum * share

    def forward(self, z: Tensor) -> Tensor:
        """Any shape; in training the running maximum follows the batch's."""
        if self.training:
            with torch.no_grad():
                largest = z.max().relu()
                self.running_maximum.lerp_(largest, self.momentum)
        return (z.relu() / self.threshold).clamp(0.0, 1.0)
