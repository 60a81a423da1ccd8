"""Neurons with negative spikes: ternary, signed and imbalanced ones.

Spikes are -1, 0 or 1; the threshold as amplitude is for the next weights. A negative spike is an
event of its own with its own surrogate: the scan's fires of two sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive
from rheobase.neurons.base import Neuron, Tap
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.neurons.parameters import positive
from rheobase.neurons.stepwise import State, StepNeuron

__all__ = [
    "ImbalancedSignedIF",
    "MagnitudeResetTernaryIF",
    "SignedIF",
    "TernaryIF",
    "TernaryLIF",
]


class TernaryIF(Neuron):
    r"""Ternary IF: fires 1 where :math:`h \ge \theta` and -1 where :math:`-h \ge \theta`.

    Each side has its surrogate. The hard reset takes the membrane to ``v_reset`` after either
    spike; the soft one subtracts :math:`s\,\theta`. Other arguments are those of `Neuron`.
    Source: Guo et al. 2024 (Ternary Spike), arXiv 2312.06372; SpikingJelly 2.0.0.

    Raises:
        ValueError: ``v_threshold`` is not above 0, or ``v_reset`` not between both thresholds.

    >>> TernaryIF(v_reset=None)(torch.tensor([[0.6], [0.6], [-2.0]])).squeeze()
    tensor([ 0.,  1., -1.])
    """

    largest = None

    def __init__(self, *, v_threshold: Positive = 1.0, **options: Any) -> None:
        super().__init__(v_threshold=v_threshold, **options)
        if not self.rest > -v_threshold:
            raise ValueError(
                f"v_reset={self.rest} is not above -v_threshold={-v_threshold}: the neuron would "
                "fire for ever"
            )

    @property
    def v_lower(self) -> float | Tensor:
        """How far below 0 a negative spike is fired."""
        return self.v_threshold

    @property
    def fire(self) -> str:
        """Both sides."""
        return "both_beyond" if self.strict else "both_at_or_beyond"

    @property
    def reset(self) -> str:
        """After a spike of either side."""
        return "soft_both" if self.v_reset is None else "hard_both"

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With the lower threshold."""
        return super().coefficients(x) | {"lower": self.v_lower}


class MagnitudeResetTernaryIF(TernaryIF):
    r"""`TernaryIF` with hard reset to 0 by the magnitude of the spike, :math:`u = (1 - |s|)\, h`.

    Same spikes; where the reset is not detached the gradient differs, since that of :math:`|s|` is
    0 for a neuron that has not fired. Source: Fang et al. 2024 (Spiking Wavelet Transformer),
    arXiv 2403.11138.

    Args:
        v_threshold: the membrane at which it fires 1.
        v_negative: it fires -1 at ``-v_negative`` and below; default ``v_threshold``.
        options: ``detach_reset``, ``strict`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: a threshold is not above 0.

    >>> MagnitudeResetTernaryIF()(torch.tensor([[0.5], [0.5], [-0.7], [-0.7]])).squeeze()
    tensor([ 0.,  1.,  0., -1.])
    """

    def __init__(
        self, *, v_threshold: Positive = 1.0, v_negative: Positive | None = None, **options: Any
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=0.0, **options)
        self.v_negative = v_threshold if v_negative is None else v_negative

    @property
    def v_lower(self) -> float | Tensor:
        """``v_negative``."""
        return self.v_negative

    @property
    def reset(self) -> str:
        """By the magnitude of the spike."""
        return "magnitude"

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"v_negative={self.v_negative}, {super().extra_repr()}"


class TernaryLIF(TernaryIF, LIF):
    r"""Ternary LIF: `TernaryIF` with the charge of `LIF`.

    Args:
        tau: time constant in steps, at least 1.
        decay_input: whether the input is divided by tau too.
        options: the arguments of `TernaryIF`.

    Raises:
        ValueError: ``tau`` is below 1; and as `TernaryIF`.

    >>> TernaryLIF()(torch.tensor([[-3.0], [0.0], [2.0]])).squeeze()
    tensor([-1.,  0.,  1.])
    """

    def __init__(self, tau: float = 2.0, *, decay_input: bool = True, **options: Any) -> None:
        super().__init__(tau=tau, decay_input=decay_input, **options)


class ImbalancedSignedIF(TernaryIF):
    r"""Signed IF with imbalanced thresholds, for a leaky ReLU of slope :math:`\alpha`.

    Fires 1 at :math:`\theta` and -1 at :math:`-\theta/\alpha`, subtracting as much; in the mean it
    is :math:`x/\theta` for positive and :math:`\alpha x/\theta` for negative input.
    Source: Kim et al. 2020 (Spiking-YOLO), AAAI 34.

    Args:
        slope: of the leaky ReLU, above 0; a tensor broadcasts to one step's neurons.
        v_threshold: of the positive side; a tensor broadcasts to one step's neurons.
        options: ``detach_reset``, ``strict`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``slope`` is not above 0, or a threshold, also one trained further.

    >>> ImbalancedSignedIF(slope=0.5)(torch.tensor([[1.0], [-1.5], [-0.5]])).squeeze()
    tensor([ 1.,  0., -1.])
    """

    def __init__(
        self,
        slope: Positive | Tensor = 0.1,
        *,
        v_threshold: Positive | Tensor = 1.0,
        **options: Any,
    ) -> None:
        if not bool((torch.as_tensor(slope) > 0.0).all()):
            raise ValueError(f"slope must be above 0, got {slope}")
        super().__init__(v_reset=None, **options)
        self.v_threshold = own_threshold(v_threshold)
        self.slope: Positive | Tensor = nn.Buffer(slope) if isinstance(slope, Tensor) else slope

    def threshold(self, x: Tensor) -> float | Tensor:
        """The threshold; one that is trained must stay above 0."""
        return still_positive(self.v_threshold, "ImbalancedSignedIF")

    @property
    def v_lower(self) -> float | Tensor:
        """A threshold over the slope."""
        return self.v_threshold / self.slope

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        slope = self.slope if isinstance(self.slope, float) else list(self.slope.shape)
        return f"slope={slope}, {super().extra_repr()}"


class SignedIF(StepNeuron):
    r"""Signed IF of Fast-SNN: a negative spike takes back a positive one that came too early.

    Starts at :math:`\theta/2`. Fires 1 where :math:`h \ge \theta`, and -1 where
    :math:`h \le -\epsilon` if more positive than negative spikes were fired so far; soft reset.
    After T steps the sum is that of the quantised ReLU.
    Source: Hu et al. 2023 (Fast-SNN), IEEE TPAMI 45(12), and its code for epsilon.

    Args:
        v_threshold: the membrane at which it fires; a tensor broadcasts to one step's neurons, and
            can be trained further.
        epsilon: how far below 0 a spike is taken back, likewise; the threshold itself gives the
            neuron of Wang et al. 2022 (signed neuron with memory), whose ``first`` is 0.
        first: the first membrane, in thresholds.
        options: ``detach_reset`` and ``surrogate`` of `Neuron`.

    Raises:
        ValueError: ``v_threshold`` or ``epsilon`` is not above 0, also after further training.

    >>> SignedIF()(torch.tensor([[0.5], [-0.6], [0.2]])).squeeze()
    tensor([ 1., -1.,  0.])
    """

    largest = None
    states = 2
    fused = True

    def __init__(
        self,
        v_threshold: Positive | Tensor = 1.0,
        *,
        epsilon: Positive | Tensor = 1e-3,
        first: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=1.0, v_reset=None, **options)
        self.v_threshold = own_threshold(v_threshold)
        self.epsilon = own_threshold(epsilon, trained=False)
        self.first = first

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `StepNeuron.run`."""
        still_positive(self.v_threshold, "SignedIF")
        return super().run(x, carried, tap)

    def start(self, x: Tensor) -> State:
        """``first`` thresholds, and no spike yet."""
        return torch.zeros_like(x) + self.first * self.v_threshold, torch.zeros_like(x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Charge, fire on both sides, reset, count."""
        u, count = state
        h = u + x
        up = self.spike(h - self.v_threshold)
        down = self.spike(-h - self.epsilon) * (count > 0.0)
        s = up - down
        return s, h, (self.reset_membrane(h, s, self.v_threshold), count + s.detach())

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"{self.epsilon:g}" if isinstance(self.epsilon, float) else "a tensor"
        return f"epsilon={shown}, first={self.first}, {super().extra_repr()}"


def still_positive(threshold: float | Tensor, owner: str) -> float | Tensor:
    """The threshold itself; a trained one is checked as `positive` does."""
    if isinstance(threshold, nn.Parameter):
        return positive(threshold, owner, "threshold")
    return threshold


def own_threshold(value: float | Tensor, *, trained: bool = True) -> float | Tensor:
    """A number as it is, a tensor as a parameter (or buffer) of the neuron; above 0."""
    if not bool((torch.as_tensor(value) > 0.0).all()):
        raise ValueError(f"thresholds must be above 0, got {value}")
    if isinstance(value, float | int):
        return float(value)
    value = value.detach().clone()
    return nn.Parameter(value) if trained else nn.Buffer(value)
