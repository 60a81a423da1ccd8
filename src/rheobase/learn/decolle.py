"""Deep continuous local learning (DECOLLE)."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.learn._responses import ResponseRule, add_outer, by_logits, network, walk
from rheobase.learn.rule import Lesson

__all__ = ["DECOLLE"]


class DECOLLE(ResponseRule):
    r"""DECOLLE: every hidden layer learns from a loss of its own, at every step.

    A layer's spikes go through a fixed random readout, :math:`y = G s`, into the same loss as the
    output's; :math:`\Delta W \propto -(G^T \partial L/\partial y \odot \sigma'(z))\,P^T`. No error
    passes from layer to layer or back in time. The last layer learns from its own membrane.
    Recurrent weights are not trained.

    Source: Kaiser, Mostafa & Neftci 2020, Frontiers in Neuroscience 14:424, eqs. 5 to 9.

    Args:
        amplitude: readouts are uniform within plus or minus it over the root of the layer's width.
        seed: of the readouts.
    """

    readouts = ("potential",)

    def __init__(self, amplitude: float = 0.5, seed: int = 0) -> None:
        self.amplitude, self.seed = amplitude, seed

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        _, layers, x = network(lesson)
        *hidden, last = layers
        T = x.shape[0]
        readouts = [
            self.readout(last.out_features, layer.out_features, i).to(x)
            for i, layer in enumerate(hidden)
        ]
        total = torch.zeros((), device=x.device)
        for responses in walk(layers, x):
            for layer, response, readout in zip(hidden, responses, readouts, strict=False):
                _, error = by_logits(lesson, response.spikes @ readout.T, T)
                add_outer(layer, (error @ readout) * layer.surrogate(response.z), response.trace)
            loss, error = by_logits(lesson, responses[-1].u, T)
            add_outer(last, error, responses[-1].trace)
            total = total + loss
        return total

    def readout(self, classes: int, width: int, number: int) -> Tensor:
        """The fixed readout ``[classes, width]`` of a hidden layer."""
        rng = torch.Generator().manual_seed(self.seed + number)
        uniform = 2.0 * torch.rand(classes, width, generator=rng) - 1.0
        readout: Tensor = uniform * (self.amplitude / width**0.5)
        return readout
