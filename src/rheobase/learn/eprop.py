"""Eligibility propagation (e-prop)."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.layers.spike_response import Response, SpikeResponse
from rheobase.learn._responses import (
    ResponseRule,
    add_outer,
    by_logits,
    carriers,
    known_feedback,
    network,
    walk,
)
from rheobase.learn.rule import Lesson, add_gradient

__all__ = ["EProp"]


class EProp(ResponseRule):
    r"""E-prop: eligibility traces forward in time, times a learning signal of every step.

    :math:`\frac{dE}{dW_{ji}} \approx \sum_t L_j^t\,\bar e_{ji}^t` with the eligibility

    :math:`e_{ji}^t = \psi_j^t (P_i^t - \beta\,\epsilon_{ji}^t)`,
    :math:`\epsilon_{ji}^{t+1} = \psi_j^t P_i^t + (\rho - \psi_j^t \beta)\,\epsilon_{ji}^t`,

    :math:`\bar e` filtered as the readout filters its input, and :math:`L_j = \sum_k B_{jk}
    \delta_k` of the gradients :math:`\delta` by the readout. It is the exact gradient of one layer
    without recurrent weights (with symmetric feedback), and leaves out what one neuron's spike does
    through others later.

    Source: Bellec et al. 2020, Nature Communications 11:3625, eqs. 1, 4, 13, 22 to 25.

    Args:
        feedback: B: ``symmetric`` (the readout's weights; for one hidden layer), ``random`` or
            ``uniform``.
        seed: of random feedback.

    Raises:
        ValueError: an unknown feedback (the nearest is offered); symmetric feedback for a network
            of several hidden layers.
    """

    readouts = ("potential",)

    def __init__(self, feedback: str = "symmetric", seed: int = 0) -> None:
        self.feedback, self.seed = known_feedback(feedback), seed

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        self.check(lesson.net)
        _, layers, x = network(lesson)
        *hidden, last = layers
        T = x.shape[0]
        carried_by = carriers(self.feedback, last, hidden, self.seed)
        traces = [_Eligibility(layer, last) for layer in hidden]
        sums: list[Tensor | float] = [0.0 for _ in hidden]
        total = torch.zeros((), device=x.device)
        for responses in walk(layers, x):
            loss, error = by_logits(lesson, responses[-1].u, T)
            total = total + loss
            add_outer(last, error, responses[-1].trace)
            for i, (trace, carrier) in enumerate(zip(traces, carried_by, strict=True)):
                signal = error @ carrier
                sums[i] = sums[i] + torch.einsum("no,noi->oi", signal, trace.step(responses[i]))
        for layer, found in zip(hidden, sums, strict=True):
            assert isinstance(found, Tensor)
            _spread(layer, found)
        return total


class _Eligibility:
    """The traces of one layer's weights, recurrent weights and bias, side by side."""

    def __init__(self, layer: SpikeResponse, readout: SpikeResponse) -> None:
        self.layer, self.readout = layer, readout
        self.adaptation: Tensor | float = 0.0
        self.filtered: tuple[Tensor, ...] | None = None

    def step(self, response: Response) -> Tensor:
        """The filtered eligibilities ``[N, out, in + out + 1]`` of this step."""
        state, (kept, raised) = response.state, self.layer.adaptation
        one = response.u.new_ones(response.u.shape[0], 1)
        pre = torch.cat([state.filtered[-1], *state.recurrent[-1:], one], dim=1).unsqueeze(1)
        slope = self.layer.surrogate(response.z).unsqueeze(-1)
        eligible: Tensor = slope * (pre - raised * self.adaptation)
        if raised:
            self.adaptation = kept * self.adaptation + eligible
        before = self.filtered or (torch.zeros_like(eligible),) * len(self.readout.decays)
        self.filtered = self.readout.filter(eligible, before)
        return self.filtered[-1]


def _spread(layer: SpikeResponse, gradient: Tensor) -> None:
    """Hand ``[out, in + out + 1]`` to the weights, the recurrent weights and the bias."""
    inputs = layer.in_features
    add_gradient(layer.weight, gradient[:, :inputs])
    add_gradient(layer.bias, gradient[:, -1])
    own = gradient[:, inputs:-1]
    if layer.recurrent is not None:
        add_gradient(layer.recurrent, own - torch.diag(own.diagonal()))
