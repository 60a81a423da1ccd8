"""The neuron of tandem learning: it fires like an IF and is differentiated like a ReLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheobase._numbers import Positive
from rheobase.neurons.base import Tap
from rheobase.neurons.integrate_and_fire import IF
from rheobase.neurons.represented import with_rate_gradient

__all__ = ["TandemIF"]


class TandemIF(IF):
    r"""IF with soft reset whose spike count has the gradient of :math:`\mathrm{ReLU}(\sum_t x_t)`.

    Forward it is the spiking half of a tandem network, backward the ANN half, which sees the spike
    counts of the layer before; both share weights. Summing over the steps, the current of a linear
    layer is its weights times the counts, so the ANN's activation needs no second pass. (The paper
    spreads a bias b over the steps, b/T each; give the layer before no bias, or one for a step.)

    Source: Wu et al. 2023 (tandem learning), IEEE TNNLS 34(1), arXiv 1907.01167, eqs. 5 to 8.

    Args:
        v_threshold: what a spike subtracts, and the membrane at which it is fired.
        options: those of `IF` but ``v_reset``.

    >>> x = torch.tensor([[-1.0, 0.6], [-1.0, 0.6]], requires_grad=True)
    >>> spikes = TandemIF()(x)
    >>> spikes.sum().backward()
    >>> spikes.tolist(), x.grad.tolist()
    ([[0.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]])
    """

    def __init__(self, v_threshold: Positive = 1.0, **options: Any) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=None, **options)

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The scan for the values, the rectified mean for the gradient."""
        with torch.no_grad():
            spikes, membrane, last = super().run(x, carried, tap)
            inside = x.sum(0) > 0.0
        return with_rate_gradient(spikes, x, inside), membrane, last
