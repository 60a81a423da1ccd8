"""Networks that settle: symmetric weights, an energy, and its minimum as the answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rheobase.models.registry import Family

__all__ = ["FAMILY", "PRESETS", "EquilibriumConfig", "EquilibriumNet", "Nudge"]


@dataclass(frozen=True)
class EquilibriumConfig:
    """One network.

    Args:
        hidden: width of each hidden layer.
        num_classes: outputs.
        inputs: pixels of an image.
        steps: steps of the free phase.
        rate: size of a step, of the membrane's time constant.
        spiking: neurons send spikes of a sigma-delta coder, instead of their activity.

    Raises:
        ValueError: sizes that are not positive.
    """

    hidden: tuple[int, ...] = (128,)
    num_classes: int = 10
    inputs: int = 784
    steps: int = 30
    rate: float = 0.5
    spiking: bool = False

    def __post_init__(self) -> None:
        sizes = (*self.hidden, self.num_classes, self.inputs, self.steps)
        if min(sizes) < 1 or not self.rate > 0:
            raise ValueError(f"sizes must be positive, got {self}")


class Nudge(NamedTuple):
    """What pulls the outputs: the target ``[N, classes]``, and how strongly (it may be below 0)."""

    target: Tensor
    strength: float


class EquilibriumNet(nn.Module):
    r"""Layers of leaky neurons with symmetric weights between neighbours.

    The energy of states s, with activities :math:`\rho(s) = \mathrm{clip}(s, 0, 1)`, is
    :math:`E = \frac12 \sum s^2 - \sum_l \rho(s_{l+1})^T (W_l\,\rho(s_l) + b_l)`, the lowest layer
    being the image; the membranes follow :math:`\dot s = -\partial E/\partial s`, less
    :math:`\beta\,\partial C/\partial s` of the cost :math:`C = \frac12 |s_L - y|^2` when nudged.

    Spiking, a neuron sends :math:`q \in \{0, 1\}` of a sigma-delta coder of its activity, and the
    others see the mean of the spikes so far, with the weight :math:`t^{-0.75}` for a new one.

    Source: Scellier & Bengio 2017, Frontiers in Computational Neuroscience 11:24, eqs. 1 to 6;
    O'Connor, Gavves & Welling 2019 (AISTATS) for the coder and the shrinking weight.

    Args:
        config: sizes.

    >>> net = EquilibriumNet(EquilibriumConfig((8,), inputs=16))
    >>> net(torch.rand(2, 1, 4, 4)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(self, config: EquilibriumConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [config.inputs, *config.hidden, config.num_classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs after the free phase, ``[1, N, num_classes]``.

        Args:
            x: images ``[N, C, H, W]`` or features ``[N, inputs]``.

        Raises:
            ValueError: another number of features.
        """
        return self.settle(self.clamped(x))[-1].unsqueeze(0)

    def clamped(self, x: Tensor) -> Tensor:
        """Images as the lowest layer's activity, ``[N, inputs]``."""
        x = x.flatten(1)
        if x.shape[1] != self.config.inputs:
            raise ValueError(
                f"the network takes {self.config.inputs} pixels, got {x.shape[1]}; build it with "
                f"inputs={x.shape[1]}"
            )
        return x

    @torch.no_grad()
    def settle(
        self,
        x: Tensor,
        states: list[Tensor] | None = None,
        nudge: Nudge | None = None,
        steps: int | None = None,
    ) -> list[Tensor]:
        """The states of all layers after ``steps`` steps, from rest or from ``states``.

        Args:
            x: activity of the lowest layer, ``[N, inputs]``.
            states: ``[N, width]`` for each layer.
            nudge: a pull on the outputs.
            steps: default those of the free phase.
        """
        if states is None:
            widths = (*self.config.hidden, self.config.num_classes)
            states = [x.new_zeros(x.shape[0], width) for width in widths]
        sent = _Senders(self.config.spiking, states)
        for _ in range(self.config.steps if steps is None else steps):
            states = self._step(x, states, sent.seen(states), nudge)
        return states

    def _step(
        self, x: Tensor, states: list[Tensor], seen: list[Tensor], nudge: Nudge | None
    ) -> list[Tensor]:
        after, rate = [], self.config.rate
        for i, s in enumerate(states):
            drive = self.layers[i](x if i == 0 else seen[i - 1])
            if i + 1 < len(states):
                drive = drive + seen[i + 1] @ self.layers[i + 1].get_parameter("weight")
            # The slope of a clipped activity: at a bound, only what leads back inside counts.
            move = drive - s
            if nudge is not None and i + 1 == len(states):
                move = move + nudge.strength * (nudge.target - s)
            after.append((s + rate * move).clamp(0.0, 1.0))
        return after

    def energy(self, x: Tensor, states: list[Tensor]) -> Tensor:
        """The energy of each sample, ``[N]``, differentiable by parameters and states."""
        total = 0.5 * sum(s.square().sum(1) for s in states)
        below = x
        for layer, s in zip(self.layers, states, strict=True):
            active = s.clamp(0.0, 1.0)
            total = total - (active * layer(below)).sum(1)
            below = active
        assert isinstance(total, Tensor)
        return total


class _Senders:
    """What neurons send to each other: their activity, or the mean of sigma-delta spikes."""

    def __init__(self, spiking: bool, states: list[Tensor]) -> None:
        self.spiking = spiking
        self.left = [torch.full_like(s, 0.0) for s in states]
        self.mean = [s.clamp(0.0, 1.0) for s in states]
        self.t = 0

    def seen(self, states: list[Tensor]) -> list[Tensor]:
        """What the neighbours see of each layer."""
        active = [s.clamp(0.0, 1.0) for s in states]
        if not self.spiking:
            return active
        self.t += 1
        for i, activity in enumerate(active):
            charged = self.left[i] + activity
            spikes = (charged >= 0.5).to(charged.dtype)
            self.left[i] = charged - spikes
            self.mean[i] = self.mean[i] + (spikes - self.mean[i]) * self.t**-0.75
        return self.mean


PRESETS: dict[str, EquilibriumConfig] = {
    "equilibrium_mnist": EquilibriumConfig(),
    "equilibrium_spiking_mnist": EquilibriumConfig(spiking=True, steps=60),
}

FAMILY = Family("equilibrium_net", network=EquilibriumNet, presets=PRESETS)
