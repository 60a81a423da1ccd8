"""Neurons differentiated on their spike representation (DSR): rates, not single spikes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive
from rheobase.neurons.base import Neuron, Tap
from rheobase.neurons.parameters import positive
from rheobase.neurons.represented import Learnt, with_rate_gradient

__all__ = ["DSRIF", "DSRLIF"]


class DSRIF(Neuron):
    r"""IF with the gradient of the clipped mean input, :math:`\mathrm{clip}(\bar x, 0, \theta)`.

    Fires where :math:`h \ge \alpha\theta`, subtracts :math:`\theta` and puts out :math:`\theta`.
    The threshold is learnt, from ``lowest`` on. The taps carry no gradient.
    Source: Meng et al. 2022 (DSR), arXiv 2205.00459.

    Args:
        v_threshold: initial threshold :math:`\theta`.
        alpha: the part of it at which the neuron fires, in (0, 1].
        lowest: the threshold is clamped to it, above 0.

    Raises:
        ValueError: an argument is out of its domain, or the threshold as learnt not a number.

    >>> DSRIF(v_threshold=2.0, alpha=0.5)(torch.full((4, 1), 0.5)).flatten().tolist()
    [0.0, 2.0, 0.0, 0.0]
    """

    charge = "integrate"
    largest = None  # spikes are of the size of the threshold

    def __init__(
        self, v_threshold: float = 6.0, *, alpha: float = 0.5, lowest: float = 0.01
    ) -> None:
        if not 0.0 < lowest <= v_threshold:
            raise ValueError(
                f"DSR takes 0 < lowest <= v_threshold, got lowest={lowest}, "
                f"v_threshold={v_threshold}"
            )
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"alpha must be in (0, 1], got {alpha}")
        super().__init__(v_threshold=v_threshold, v_reset=None)
        self.v_threshold: nn.Parameter = nn.Parameter(torch.tensor(float(v_threshold)))
        self.alpha = alpha
        self.lowest = lowest

    @property
    def fire(self) -> str:
        """Spikes of the size that the threshold gives them."""
        return "sized"

    @property
    def reset(self) -> str:
        """Subtract the threshold, which is not the membrane at which it fires."""
        return "after_any"

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Those of the forward pass alone."""
        theta = self._theta().detach()
        own = {"threshold": self.alpha * theta, "height": self.size(theta), "amount": theta}
        return super().coefficients(x) | own

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The scan for the values, the rates for the gradient."""
        theta = self._theta()
        with torch.no_grad():
            spikes, membrane, last = super().run(x, carried, tap)
            rate, shares = self.rate(x)
            top = self.size(theta)
            above = rate > top
            inside = (rate >= 0.0) & ~above
        by_input, by_theta = self.slopes
        represented = with_rate_gradient(
            spikes, x, inside, by_input, shares, Learnt(theta, above, by_theta)
        )
        return represented, membrane, last

    def size(self, theta: Tensor) -> Tensor:
        """What a spike puts out: also the largest rate."""
        return theta

    @property
    def slopes(self) -> tuple[float, float]:
        """The rate's derivatives: by the mean input where it is not clipped, by theta where it is.

        As the gradient takes them.
        """
        return 1.0, 1.0

    def rate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rate ``[N, ...]`` before it is clipped, and each step's share (None: the same)."""
        return x.mean(0), None

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"alpha={self.alpha}, lowest={self.lowest}"

    def _theta(self) -> Tensor:
        # Not a number is what no clamp mends.
        return positive(self.v_threshold.clamp(min=self.lowest), type(self).__name__, "threshold")


class DSRLIF(DSRIF):
    r"""LIF with the gradient of its weighted firing rate.

    :math:`h = \beta u + (1-\beta)x` with :math:`\beta = e^{-\Delta t/\tau}`; a spike puts out
    :math:`\theta/\Delta t`. The rate is :math:`\mathrm{clip}(\bar x/\tau, 0, \theta/\Delta t)` with
    :math:`\bar x` weighted by :math:`e^{-(T-t)\Delta t/\tau}`. As in the released code, the
    gradient by x is spread evenly over the steps, and that by :math:`\theta` has the factor
    :math:`\Delta t` where the formula says :math:`1/\Delta t`.
    Source: Meng et al. 2022 (DSR), arXiv 2205.00459.

    Args:
        v_threshold: initial threshold.
        tau: membrane time constant.
        delta_t: time of one step, in the unit of tau.
        alpha: the part of the threshold at which the neuron fires, in (0, 1].
        lowest: the threshold is clamped to it, above 0.

    Raises:
        ValueError: an argument is out of its domain.

    >>> DSRLIF(v_threshold=0.1)(torch.full((4, 1), 1.0)).flatten().tolist()
    [0.0, 2.0, 0.0, 0.0]
    """

    charge = "affine"

    def __init__(
        self,
        v_threshold: float = 1.0,
        *,
        tau: Positive = 2.0,
        delta_t: Positive = 0.05,
        alpha: float = 0.3,
        lowest: float = 0.01,
    ) -> None:
        super().__init__(v_threshold, alpha=alpha, lowest=lowest)
        self.tau = tau
        self.delta_t = delta_t

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """Decay and what is left for the input."""
        beta = math.exp(-self.delta_t / self.tau)
        return {"decay": beta, "gain": 1.0 - beta, "bias": 0.0}

    def size(self, theta: Tensor) -> Tensor:
        """A spike lasts one step."""
        return theta / self.delta_t

    @property
    def slopes(self) -> tuple[float, float]:
        """The second as in the released code, where the formula says its inverse."""
        return 1.0 / self.tau, self.delta_t

    def rate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weighted rate, and the share of each step."""
        steps = x.shape[0]
        left = [math.exp(-k * self.delta_t / self.tau) for k in reversed(range(steps))]
        weight = x.new_tensor([w / sum(left) for w in left])
        return torch.tensordot(weight, x, 1) / self.tau, steps * weight

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"tau={self.tau}, delta_t={self.delta_t}, {super().extra_repr()}"
