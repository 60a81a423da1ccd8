"""Time to first spike: one spike a neuron, the earlier the larger the value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import NEURONS, Code, Replacement, folded, unfolded
from rheobase.neurons import Neuron
from rheobase.neurons.base import Tap

__all__ = ["FirstSpike", "FirstSpikeNeuron"]


class FirstSpikeNeuron(Neuron):
    r"""Fires once in its window of T steps, at the step that stands for the sum of its input.

    With :math:`v` the sum over the window before, it fires at the first step t with
    :math:`v \ge \theta (T - t) / T - \theta / 2T`, which stands for :math:`\theta (T - t) / T`:
    the clipped ReLU of v, rounded to T levels. As it needs the whole sum first it is not causal.
    Source: Stanojevic et al. 2023, arXiv 2212.12522 (one window a layer, slope at threshold alike
    for all inputs), in discrete time.

    Args:
        v_threshold: :math:`\theta`, a scalar or a tensor that broadcasts to one step's neurons.

    >>> FirstSpikeNeuron(torch.tensor(1.0))(torch.tensor([[0.8], [0.0], [0.0], [0.0]])).tolist()
    [[0.0], [1.0], [0.0], [0.0]]
    """

    scanned = False
    causal = False

    def __init__(self, v_threshold: Tensor) -> None:
        super().__init__(v_threshold=1.0, v_reset=None)
        self.v_threshold: nn.Parameter = nn.Parameter(v_threshold.detach().clone())

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sum of the input, then one spike at most."""
        steps = x.shape[0]
        v = x.sum(0)
        level = (v / self.v_threshold * steps + 0.5).floor().clamp(0, steps)
        left = torch.arange(steps, 0, -1, dtype=x.dtype, device=x.device)
        spikes = (level == left.view(-1, *[1] * v.dim())).to(x.dtype)
        return spikes, v.expand_as(x) if tap else None, v


class FirstSpike(Code):
    """A first-spike neuron in an activation's place; its spike counts by its time."""

    conventions = ("sum",)

    def __init__(self, neuron: FirstSpikeNeuron, site: Site) -> None:
        super().__init__()
        self.neuron = neuron
        self.site = site

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        spikes = self.neuron(unfolded(x, steps))
        left = torch.arange(steps, 0, -1, dtype=x.dtype, device=x.device) / steps
        left = left.view(-1, *[1] * (spikes.dim() - 1))
        return folded(spikes * left * self.neuron.v_threshold)

    @property
    def sizes(self) -> Tensor:
        """The value of a spike at the first step."""
        return self.neuron.v_threshold.detach()

    @property
    def reach(self) -> float:  # type: ignore[override]
        """A spike at the first step."""
        return self.sizes.max().item()

    def count(self, x: Tensor, sent: Tensor) -> Tensor:
        """One, or none."""
        return (sent != 0.0).sum(0).to(sent.dtype)


def _first_spike(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    return FirstSpike(FirstSpikeNeuron(threshold), site)


NEURONS["first_spike"] = _first_spike
